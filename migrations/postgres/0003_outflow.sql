-- How far each webhook has been told of the log, and which process tells it at the moment. Nothing of an entry
-- is copied here: what is still to be delivered is the log itself, so that what is erased there is gone.
CREATE TABLE webhook (
    name          TEXT   NOT NULL PRIMARY KEY,
    -- the global position of the first entry that is not dealt with
    next_idx      BIGINT NOT NULL,
    -- who delivers, and until when nobody else does
    holder        TEXT   NOT NULL,
    held_until_us BIGINT NOT NULL
);
