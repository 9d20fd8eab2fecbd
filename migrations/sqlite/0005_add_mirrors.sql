-- Copying outputs before their links die, and forgetting the copies of erased jobs.

-- 1 once every output that was to be copied is; null where mirroring was off when the result came
alter table jobs add column secured integer check (secured in (0, 1));

create table mirrors (
    job_seq integer not null references jobs (seq),
    -- of the output in job_outputs
    position integer not null,
    state text not null check (state in ('pending', 'stored', 'failed')),
    -- when the link dies, as far as it says so itself
    expires_at integer,
    attempts integer not null default 0,
    next_attempt_at integer check ((state = 'pending') = (next_attempt_at is not null)),
    -- while it is being copied; a crash gives it back
    leased_until integer,
    -- why the last attempt failed, for people
    reason text,
    -- of the copy
    size_bytes integer,
    sha256 blob check (length(sha256) = 32),
    content_type text,
    primary key (job_seq, position),
    check ((state = 'stored') = (size_bytes is not null and sha256 is not null
        and content_type is not null))
) strict, without rowid;

create index mirrors_due on mirrors (next_attempt_at) where state = 'pending';
-- the order in which they are taken: a link that does not say when it dies is given an hour
create index mirrors_by_end on mirrors
    (coalesce(expires_at, next_attempt_at + 3600000), job_seq, position) where state = 'pending';

-- Erased jobs whose copies are still to be deleted. The row outlives the leases that stood when the
-- job was erased, because a copy that was under way may be finished after the first deletion.
create table doomed_files (
    job_id blob primary key check (length(job_id) = 16),
    until integer not null
) strict, without rowid;

-- Batches of erased jobs, and up to which one nothing is left of them in the free room of pages and
-- in the write-ahead log: a process that is killed in between goes on with it.
alter table instance add column erasures integer not null default 0;
alter table instance add column erasures_finished integer not null default 0;
