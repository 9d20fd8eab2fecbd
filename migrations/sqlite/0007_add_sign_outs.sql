-- Sessions that were signed out, so that a restart does not bring them back. A row is of use until
-- the session would have ended by itself.

create table sign_outs (
    -- the id in the session's cookie, by which nobody can make one
    session blob primary key check (length(session) = 16),
    ends_at integer not null
) strict, without rowid;
