-- Drop what waits to come back to a mailbox, of a request whose data are gone.
-- Guarantees: acts only on what still waits, so what has gone back meanwhile is whole; with a message
-- go its mark and its count.
-- KEYS  1 delayed ZSET  2 waiting hash (request -> entries)  3 in-flight ZSET
-- ARGV  1 request  2.. members of the ZSET
-- Returns how many were dropped.
local dropped = 0
for i = 2, #ARGV do
  local key = cjson.decode(ARGV[i])[1]
  if string.match(key, '^[^/]+') == ARGV[1] and redis.call('ZREM', KEYS[1], ARGV[i]) == 1 then
    redis.call('ZREM', KEYS[3], key)
    if redis.call('HINCRBY', KEYS[2], ARGV[1], -1) <= 0 then redis.call('HDEL', KEYS[2], ARGV[1]) end
    dropped = dropped + 1
  end
end
return dropped
