-- Orders that a person gave again go at once, also to a target that is left alone for a while.

-- when it was ordered again, until it is attempted
alter table relays add column ordered_at integer;
create index relays_ordered on relays (target, ordered_at)
    where state = 'pending' and ordered_at is not null;
