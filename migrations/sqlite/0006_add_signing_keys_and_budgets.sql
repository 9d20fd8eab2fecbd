-- Instance keys that were replaced, and how much a job keeps of what is received for it.

-- number of instance.signing_key: grows by one with every rotation
alter table instance add column key_number integer not null default 1;

-- Keys that were replaced: each is honoured for the jobs that were submitted under it.
create table retired_keys (
    number integer primary key,
    signing_key blob not null check (length(signing_key) = 32),
    retired_at integer not null
) strict;

-- number of the key that signed the job's callback address
alter table jobs add column key_number integer not null default 1;
-- JSON array of numbers: keys that signed an earlier submission, which the Engine may be running
alter table jobs add column earlier_keys text not null default '[]';
create index jobs_with_earlier_keys on jobs (seq) where earlier_keys <> '[]';

-- What is kept already, so that no arrival has to count it.
alter table jobs add column kept_after_result integer not null default 0;
alter table jobs add column bytes_beside_result integer not null default 0;
alter table jobs add column kept_malformed integer not null default 0;
-- arrivals beyond the budget: counted, not kept
alter table jobs add column unkept_count integer not null default 0;
alter table jobs add column oversize_count integer not null default 0;

-- A job whose only delivery is its result has nothing beside it.
update jobs set (kept_after_result, bytes_beside_result, kept_malformed) = (
    select count(*) filter (where deliveries.seq > jobs.result_delivery),
        coalesce(sum(size_bytes) filter (where deliveries.seq is not jobs.result_delivery), 0),
        count(*) filter (where outcome = 'malformed')
    from deliveries where job_seq = jobs.seq)
where delivery_count > 1 or (delivery_count = 1 and result_delivery is null);
