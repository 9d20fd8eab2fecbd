-- Passing results on: an order for each target, and every attempt to carry it out.

-- the caller's own finishWebhook
alter table jobs add column relay_url text;

create table relays (
    seq integer primary key,
    id blob not null unique check (length(id) = 16),
    job_seq integer not null references jobs (seq),
    -- name of a configured target, or origin of a job's own
    target text not null,
    -- address of a job's own target; null for a configured one, whose address the settings hold
    url text,
    state text not null check (state in ('pending', 'delivered', 'dead')),
    -- attempts in all, and since it was last ordered: those count against the schedule
    attempts integer not null default 0,
    tries integer not null default 0,
    next_attempt_at integer check ((state = 'pending') = (next_attempt_at is not null)),
    -- while it is being attempted; a crash gives it back
    leased_until integer,
    last_status integer,
    created_at integer not null,
    -- a result goes to a target once
    unique (job_seq, target)
) strict;

create index relays_due on relays (target, next_attempt_at) where state = 'pending';
create index relays_by_state on relays (state, seq);

create table relay_attempts (
    relay_seq integer not null references relays (seq),
    number integer not null,
    at integer not null,
    millis integer not null,
    status integer,
    error text,
    -- the first bytes of the answer
    answer blob,
    primary key (relay_seq, number)
) strict, without rowid;

-- Targets that fail: after some failures in a row they are left alone for a while.
create table relay_targets (
    target text primary key,
    failures integer not null,
    paused_until integer
) strict, without rowid;
