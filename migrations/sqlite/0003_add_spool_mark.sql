-- How far the emergency spool has been taken in: which spool file, and the highest record number
-- below which nothing of it waits. It moves in the transaction that takes a record in, so that a
-- process that is killed in between does not take it in again.

alter table instance add column spool_id blob check (length(spool_id) = 16);
alter table instance add column spool_mark integer not null default 0;
