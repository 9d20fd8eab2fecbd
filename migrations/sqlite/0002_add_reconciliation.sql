-- When a job in flight is looked up at the Engine, and what became of that.

-- next look; null if none is due
alter table jobs add column due_at integer;
-- looks so far: the pause between them grows
alter table jobs add column lookups integer not null default 0;
alter table jobs add column given_up_at integer;
-- the public URL for which a job with a dead callback address was moved to the front
alter table jobs add column expedited_for text;

create index jobs_due on jobs (due_at) where due_at is not null;
-- jobs that have no time for their first look yet: few at any moment
create index jobs_unscheduled on jobs (seq)
    where due_at is null and given_up_at is null and status in ('submitted', 'unconfirmed');
create index jobs_in_flight on jobs (created_at)
    where status in ('submitting', 'submitted', 'unconfirmed');
