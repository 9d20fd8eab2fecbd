-- Jobs, what was received for them, and their timeline.
--
-- Times are milliseconds since the Unix epoch, UTC. Ids are the 16 bytes of a UUID. Rows that lists
-- read hold no payload: bodies stand in tables of their own, so a page of a long list stays small.

create table instance (
    -- one row: this database belongs to one instance
    id integer primary key check (id = 1),
    -- signs callback addresses; losing it would orphan every job in flight
    signing_key blob not null check (length(signing_key) = 32),
    created_at integer not null,
    -- last readiness write
    probed_at integer not null
) strict;

create table jobs (
    seq integer primary key,
    id blob not null unique check (length(id) = 16),
    origin text not null check (origin in ('submitted', 'recovered', 'inbox')),
    status text not null check (status in ('submitting', 'submitted', 'unsent', 'rejected',
        'unconfirmed', 'succeeded', 'partial', 'failed')),
    -- 1 or 0 once there is a result
    success integer check (success in (0, 1)),
    overdue integer not null default 0 check (overdue in (0, 1)),
    reference text,
    engine_job_id text,
    end_user_id text,
    cloud_package text,
    external_job_id text,
    -- SHA-256 of what an inbox job is found again by: the Engine's id, else its first body
    inbox_key blob unique,
    -- public URL that stands in the job's finishWebhook
    callback_base text,
    created_at integer not null,
    submitted_at integer,
    finished_at integer,
    -- HTTP status of the Engine's answer to the submission
    engine_status integer,
    -- seq of the delivery that is the result, and the digest of its reading
    result_delivery integer,
    result_reading blob check (length(result_reading) = 32),
    delivery_count integer not null default 0,
    -- JSON array of texts
    warnings text not null default '[]',
    -- a job has finished exactly when it has a result
    check ((status in ('succeeded', 'partial', 'failed')) = (result_delivery is not null)),
    check ((result_delivery is null) = (finished_at is null)),
    check ((result_delivery is null) = (success is null))
) strict;

-- One index for each filter of the list, in the list's order; those of optional fields hold only
-- the rows that have one.
create index jobs_by_age on jobs (created_at);
create index jobs_by_status on jobs (status, created_at);
create index jobs_by_end_user on jobs (end_user_id, created_at) where end_user_id is not null;
create index jobs_by_cloud_package on jobs (cloud_package, created_at) where cloud_package is not null;
create index jobs_by_reference on jobs (reference, created_at) where reference is not null;
create index jobs_by_engine_job on jobs (engine_job_id, created_at) where engine_job_id is not null;
create index jobs_by_external_job on jobs (external_job_id, created_at) where external_job_id is not null;
create index jobs_overdue on jobs (created_at) where overdue = 1;
create index jobs_by_finish on jobs (finished_at) where finished_at is not null;

create table job_bodies (
    job_seq integer primary key references jobs (seq),
    -- as it goes to the Engine, with the caller's own finishWebhook; null if not submitted here
    request text,
    -- the Engine's reply
    engine_response text
) strict;

create table job_inputs (
    job_seq integer not null references jobs (seq),
    position integer not null,
    name text not null,
    extension text not null,
    upload_url text,
    notify_url text,
    state text not null check (state in ('awaiting', 'uploaded', 'notified', 'provided')),
    primary key (job_seq, position)
) strict, without rowid;

create table job_outputs (
    job_seq integer not null references jobs (seq),
    position integer not null,
    name text not null,
    kind text not null,
    -- place among the requested files of its kind; null if it matches none of them
    kind_index integer,
    extension text,
    -- JSON array of texts
    structures text not null,
    status text,
    url text,
    primary key (job_seq, position)
) strict, without rowid;

create table deliveries (
    seq integer primary key,
    id blob not null unique check (length(id) = 16),
    job_seq integer not null references jobs (seq),
    received_at integer not null,
    source text not null,
    outcome text not null check (outcome in ('stored', 'refreshed', 'conflict', 'unrecognised',
        'malformed')),
    size_bytes integer not null,
    sha256 blob not null check (length(sha256) = 32),
    -- further identical arrivals
    repeats integer not null default 0,
    -- JSON array of [name, value]
    headers text not null,
    -- the same bytes are stored once for a job
    unique (job_seq, sha256)
) strict;

create table delivery_bodies (
    delivery_seq integer primary key references deliveries (seq),
    body blob not null
) strict;

create table events (
    -- never used twice: clients resume after the last one they saw
    seq integer primary key autoincrement,
    job_id blob not null check (length(job_id) = 16),
    type text not null,
    at integer not null,
    -- a JSON object
    data text not null
) strict;

create index events_by_job on events (job_id, seq);

create table idempotency_keys (
    api_key text not null,
    -- SHA-256 of the caller's key: a key may hold personal data, its digest does not
    key_sha256 blob not null check (length(key_sha256) = 32),
    -- of the JSON value, white space and the order of names set aside
    fingerprint blob not null check (length(fingerprint) = 32),
    job_id blob not null check (length(job_id) = 16),
    created_at integer not null,
    primary key (api_key, key_sha256)
) strict, without rowid;

create index idempotency_keys_by_job on idempotency_keys (job_id);

-- What remains of an erased job, so that its late callbacks are refused.
create table erased_jobs (
    job_id blob primary key check (length(job_id) = 16),
    inbox_key blob unique,
    erased_at integer not null
) strict, without rowid;
