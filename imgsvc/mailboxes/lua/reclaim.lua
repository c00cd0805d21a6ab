-- Take back what a replica held: shared mailboxes get it again under new ids, its own lanes are
-- emptied into `fetch` (their bytes died with the replica's spool).
-- Guarantees: entries get new ids, so the old owner's XACK answers 0 should it wake up; nothing
-- is taken from a replica whose heartbeat is fresh, unless it asks itself (it is leaving).
-- KEYS  1 replicas ZSET  2 fetch  3.. the other shared mailboxes, then the lanes of the replica
-- ARGV  1 group  2 replica  3 most entries to move  4 '1' if the replica itself asks
--       5 how many mailboxes are shared  6 number of deliveries that says that work had begun
-- Returns {entries moved, 1 if nothing is left}; moved = -1: the replica is alive.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local leaving = ARGV[4] == '1'
local expiry = redis.call('ZSCORE', KEYS[1], ARGV[2])
if not leaving and expiry and tonumber(expiry) > now then return {-1, 0} end
local room, moved = tonumber(ARGV[3]), 0
local last = 1 + ARGV[5] -- of the shared mailboxes

local function field(entry, name)
  for i = 1, #entry, 2 do
    if entry[i] == name then return entry[i + 1] end
  end
  return '0'
end

-- A crash is charged to what was being worked on, not to what waited; an orderly leave to nothing.
local function charge(from, id)
  if leaving then return 0 end
  local held = redis.pcall('XPENDING', from, ARGV[1], id, id, 1)
  return not held.err and held[1] and held[1][4] >= tonumber(ARGV[6]) and 1 or 0
end

local function add_again(from, to, id, entry)
  local deliveries = tonumber(field(entry, 'n')) + charge(from, id)
  redis.call('XACK', from, ARGV[1], id)
  redis.call('XDEL', from, id)
  redis.call('XADD', to, '*', 'k', field(entry, 'k'), 'm', field(entry, 'm'), 'n', deliveries)
  moved = moved + 1
end

local function exists(mailbox)
  return redis.call('EXISTS', mailbox) == 1
end

for i = 2, last do
  if exists(KEYS[i]) and moved < room then
    local held = redis.pcall('XPENDING', KEYS[i], ARGV[1], '-', '+', room - moved, ARGV[2])
    if held.err then held = {} end -- no group: nothing was handed out
    for _, item in ipairs(held) do
      local found = redis.call('XRANGE', KEYS[i], item[1], item[1])
      if #found == 1 then
        add_again(KEYS[i], KEYS[i], item[1], found[1][2])
      else
        redis.call('XACK', KEYS[i], ARGV[1], item[1])
      end
    end
  end
end
for i = last + 1, #KEYS do
  if exists(KEYS[i]) and moved < room then
    for _, found in ipairs(redis.call('XRANGE', KEYS[i], '-', '+', 'COUNT', room - moved)) do
      add_again(KEYS[i], KEYS[2], found[1], found[2])
    end
  end
end
if moved >= room then return {moved, 0} end
for i = last + 1, #KEYS do redis.call('DEL', KEYS[i]) end
for i = 2, last do
  if exists(KEYS[i]) then redis.pcall('XGROUP', 'DELCONSUMER', KEYS[i], ARGV[1], ARGV[2]) end
end
redis.call('ZREM', KEYS[1], ARGV[2])
return {moved, 1}
