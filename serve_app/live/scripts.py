"""The Lua scripts of live turns: one atomic step on one turn each.

A turn's record is a hash: owner key holder token turn made ticket deadline until attempts state
cancel. Times are the store's, in milliseconds. `made` is a digest of what makes it, "" if nobody
knows; `ticket` settles the limits of its key. `token` is the newest teller's, `holder` the value of
the session's lease while that one tells, and `until` is when others may take the turn up. Its
events are a list; event N is its element N.
"""

from serve_app.sessions.keys import ADD_EXTRAS, CLAIM, KEEP_RESULT, NOW_MS
from serve_app.store.script import Script

# Lua: whether `token` may write for the turn.
_MINE = """
local function is_mine(live, gone, token)
    return redis.call('EXISTS', gone) == 0 and redis.call('HGET', live, 'token') == token
end
"""

# Lua: the end of a turn whose terminal event is told; it is kept for a while. Needs NOW_MS.
_FINISH = f"""{ADD_EXTRAS}
local function finish(live, events, lease, extras, keep_ms)
    if redis.call('GET', lease) == redis.call('HGET', live, 'holder') then
        redis.call('DEL', lease)
    end
    redis.call('HSET', live, 'state', 'ended')
    redis.call('HDEL', live, 'turn')
    redis.call('PEXPIRE', live, keep_ms)
    redis.call('PEXPIRE', events, keep_ms)
    add_extras(extras, now_ms(), keep_ms, live, events)
end
"""

# KEYS: live events lease gone extras. ARGV: held holder token owner key turn first time_left_ms
# hold_ms lease_ms keep_ms made ticket. `held` is the lease's value so far. Returns 1, or 0 if it is
# another's.
START = Script(f"""{NOW_MS}{ADD_EXTRAS}
local live, events, lease, gone, extras = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
if redis.call('EXISTS', gone) == 1 then return 0 end
local token = redis.call('HGET', live, 'token')
if token then return token == ARGV[3] and 1 or 0 end
local held = redis.call('GET', lease)
if held and held ~= ARGV[1] then return 0 end
local now = tonumber(now_ms())
local function at(ms) return string.format('%.0f', now + ms) end
redis.call('HSET', live, 'owner', ARGV[4], 'key', ARGV[5], 'holder', ARGV[2], 'token', ARGV[3],
    'turn', ARGV[6], 'made', ARGV[12], 'ticket', ARGV[13],
    'deadline', at(ARGV[8]), 'until', at(ARGV[9]), 'attempts', 0,
    'state', 'running', 'cancel', '')
redis.call('RPUSH', events, ARGV[7])
redis.call('SET', lease, ARGV[2], 'PX', ARGV[10])
add_extras(extras, now, ARGV[11], live, events)
redis.call('PEXPIRE', live, ARGV[11])
redis.call('PEXPIRE', events, ARGV[11])
return 1
""")

# KEYS: live events gone. ARGV: token start event… Returns {is_held, cancel}.
APPEND = Script(f"""{_MINE}
if not is_mine(KEYS[1], KEYS[3], ARGV[1]) then return {{0, ''}} end
local num_known = redis.call('LLEN', KEYS[2]) - ARGV[2]
if num_known < 0 then return {{0, ''}} end -- events are gone, as nobody may see
for i = 3 + num_known, #ARGV do redis.call('RPUSH', KEYS[2], ARGV[i]) end
return {{1, redis.call('HGET', KEYS[1], 'cancel')}}
""")

# KEYS: live gone. ARGV: token. Returns {is_held, cancel}.
STANDING = Script(f"""{_MINE}
if not is_mine(KEYS[1], KEYS[2], ARGV[1]) then return {{0, ''}} end
return {{1, redis.call('HGET', KEYS[1], 'cancel')}}
""")

# KEYS: live lease gone. ARGV: token holder hold_ms lease_ms. Returns {is_held, cancel}.
RENEW = Script(f"""{_MINE}{NOW_MS}
if not is_mine(KEYS[1], KEYS[3], ARGV[1]) then return {{0, ''}} end
redis.call('HSET', KEYS[1], 'until', string.format('%.0f', now_ms() + ARGV[3]))
if redis.call('GET', KEYS[2]) == ARGV[2] then redis.call('PEXPIRE', KEYS[2], ARGV[4]) end
return {{1, redis.call('HGET', KEYS[1], 'cancel')}}
""")

# KEYS: live events meta gone. ARGV: owner start. Returns the events from start on, or false.
READ = Script("""
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return false end
if redis.call('HGET', KEYS[3], 'owner') ~= ARGV[1] then return false end
if redis.call('EXISTS', KEYS[4]) == 1 then return false end
return redis.call('LRANGE', KEYS[2], ARGV[2], -1)
""")

# KEYS: lease meta gone extras. ARGV: owner. Returns the key of the turn that runs, or false.
RUNNING = Script("""
local held = redis.call('GET', KEYS[1])
if not held or redis.call('EXISTS', KEYS[3]) == 1 then return false end
if redis.call('HGET', KEYS[2], 'owner') ~= ARGV[1] then return false end
for _, key in ipairs(redis.call('ZRANGE', KEYS[4], 0, -1)) do
    if string.find(key, ':live:%x+$') and redis.call('HGET', key, 'holder') == held
        and redis.call('HGET', key, 'state') == 'running' then
        return key
    end
end
return false
""")

# KEYS: live events lease meta gone extras ids. ARGV: token hold_ms lease_ms keep_ms turn_id
# max_tries given_up made grace_ms. Returns {state}: none, held, given up with {state, ticket,
# events}, or taken with {state, is_stale, time_left_ms, record as a flat list, events}. A turn of
# another make-up than `made` is left to its own for grace_ms. One that was taken up max_tries times
# ends as given_up: what kills its tellers may be in its record, so that is not looked at. One that
# is stored has only to be told so.
TAKE_UP = Script(f"""{NOW_MS}{_FINISH}
local live, events, lease = KEYS[1], KEYS[2], KEYS[3]
local owner = redis.call('HGET', live, 'owner')
if not owner or redis.call('HGET', live, 'state') ~= 'running' then return {{'none'}} end
if redis.call('EXISTS', KEYS[5]) == 1 or redis.call('HGET', KEYS[4], 'owner') ~= owner then
    redis.call('DEL', live, events)
    return {{'none'}}
end
local now = tonumber(now_ms())
local token, made = unpack(redis.call('HMGET', live, 'token', 'made'))
if token ~= ARGV[1] then
    local is_stored = redis.call('HEXISTS', KEYS[7], ARGV[5]) == 1
    local is_other = made and made ~= '' and made ~= ARGV[8]
    local free_at = tonumber(redis.call('HGET', live, 'until'))
    if is_other and not is_stored then free_at = free_at + ARGV[9] end
    if free_at > now then return {{'held'}} end
    if token ~= 'handed' and redis.call('HINCRBY', live, 'attempts', 1) > tonumber(ARGV[6])
        and not is_stored then
        local told = redis.call('LRANGE', events, 0, -1)
        redis.call('RPUSH', events, ARGV[7])
        finish(live, events, lease, KEYS[6], ARGV[4])
        return {{'given up', redis.call('HGET', live, 'ticket'), told}}
    end
    local held = redis.call('GET', lease)
    if not held or held == redis.call('HGET', live, 'holder') then
        local holder = ARGV[1] .. redis.call('HGET', live, 'key')
        redis.call('HSET', live, 'holder', holder)
        redis.call('SET', lease, holder, 'PX', ARGV[3])
    end
    redis.call('HSET', live, 'token', ARGV[1],
        'until', string.format('%.0f', now + ARGV[2]))
end
local is_stale = redis.call('GET', lease) ~= redis.call('HGET', live, 'holder') and 1 or 0
local left = string.format('%.0f', redis.call('HGET', live, 'deadline') - now)
return {{'taken', is_stale, left, redis.call('HGETALL', live), redis.call('LRANGE', events, 0, -1)}}
""")

# KEYS: live gone. ARGV: token pause_ms handed.
HAND_OVER = Script(f"""{_MINE}{NOW_MS}
if not is_mine(KEYS[1], KEYS[2], ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'token', ARGV[3], 'until', string.format('%.0f', now_ms() + ARGV[2]))
return 1
""")

# KEYS: live events lease gone extras. ARGV: token number last keep_ms.
END = Script(f"""{_MINE}{NOW_MS}{_FINISH}
local live, events = KEYS[1], KEYS[2]
if not is_mine(live, KEYS[4], ARGV[1]) then return 0 end
local num_events = redis.call('LLEN', events)
if num_events == tonumber(ARGV[2]) then
    redis.call('RPUSH', events, ARGV[3])
elseif num_events < tonumber(ARGV[2]) then
    return 0
end
finish(live, events, KEYS[3], KEYS[5], ARGV[4])
return 1
""")

# KEYS: live meta gone. ARGV: owner cancel. Returns the request that stands, "" for no running turn.
CANCEL = Script("""
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return '' end
if redis.call('HGET', KEYS[2], 'owner') ~= ARGV[1] then return '' end
if redis.call('EXISTS', KEYS[3]) == 1 then return '' end
if redis.call('HGET', KEYS[1], 'state') ~= 'running' then return '' end
if redis.call('HGET', KEYS[1], 'cancel') == '' then
    redis.call('HSET', KEYS[1], 'cancel', ARGV[2])
end
return redis.call('HGET', KEYS[1], 'cancel')
""")

# KEYS: live gone results. ARGV: token field. Returns {is_held, result or false}.
FIND = Script(f"""{_MINE}
if not is_mine(KEYS[1], KEYS[2], ARGV[1]) then return {{0}} end
return {{1, redis.call('HGET', KEYS[3], ARGV[2])}}
""")

# KEYS: live gone sent meta. ARGV: token field ttl_ms. Returns {is_held, may_send}.
SEND = Script(f"""{_MINE}{CLAIM}
if not is_mine(KEYS[1], KEYS[2], ARGV[1]) then return {{0}} end
return {{1, claim(KEYS[3], KEYS[4], ARGV[2], ARGV[1], ARGV[3])}}
""")

# KEYS: live gone results extras. ARGV: token field result. Returns {is_held, the result that
# stands}.
RECORD = Script(f"""{_MINE}{NOW_MS}{ADD_EXTRAS}{KEEP_RESULT}
if not is_mine(KEYS[1], KEYS[2], ARGV[1]) then return {{0}} end
return {{1, keep_result(KEYS[3], KEYS[4], ARGV[2], ARGV[3])}}
""")

# KEYS: running ingresses. ARGV: ingress is_leaving hold_ms here_ms max_orphans member…
# Returns {how many other ingresses of its make-up there are, members whose time is over}. Its name
# begins with its make-up and a colon.
PATROL = Script(f"""{NOW_MS}
local now = tonumber(now_ms())
local function at(ms) return string.format('%.0f', now + ms) end
for i = 6, #ARGV do redis.call('ZADD', KEYS[1], at(ARGV[3]), ARGV[i]) end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', at(0))
redis.call('ZREM', KEYS[2], ARGV[1])
local make_up, num_others = string.match(ARGV[1], '^[^:]*:'), 0
for _, name in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
    if string.sub(name, 1, #make_up) == make_up then num_others = num_others + 1 end
end
if ARGV[2] == '0' then redis.call('ZADD', KEYS[2], at(ARGV[4]), ARGV[1]) end
local orphans = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', at(0), 'LIMIT', 0, ARGV[5])
return {{num_others, orphans}}
""")

# KEYS: running. ARGV: member in_ms. When to look whether the turn has a teller.
HINT = Script(f"""{NOW_MS}
return redis.call('ZADD', KEYS[1], string.format('%.0f', now_ms() + ARGV[2]), ARGV[1])
""")
