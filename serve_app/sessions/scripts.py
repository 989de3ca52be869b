"""The Lua scripts of a turn: one atomic step on one session each, which checks its owner.

A turn is opaque bytes here; the store puts its time and a colon before them.
"""

from serve_app.sessions.keys import (
    ADD_EXTRAS,
    CLAIM,
    FENCE,
    IMAGE,
    KEEP_RESULT,
    NOW_MS,
    RENEW_EXTRAS,
    TELLS,
)
from serve_app.store.script import Script

# Lua: all of a session, as `packing.unpack_session` reads it.
READ = """
local function read(meta, turns, feedback)
    return {
        redis.call('HGETALL', meta),
        redis.call('LRANGE', turns, 0, -1),
        redis.call('HGETALL', feedback)
    }
end
"""

# KEYS: meta turns feedback. ARGV: owner.
LOAD = Script(f"""{READ}
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return false end
return read(KEYS[1], KEYS[2], KEYS[3])
""")

# KEYS: meta turns ids. ARGV: owner turn_id. Returns {the turn or false}, nil without the session.
LOAD_TURN = Script("""
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return false end
local index = redis.call('HGET', KEYS[3], ARGV[2])
return {index and redis.call('LINDEX', KEYS[2], index)}
""")

# KEYS: meta turns feedback keys lease gone. ARGV: owner key holder lease_ms may_create max_bytes.
# Returns {state, the session, the stored turn, or the holder of the lease}. Who does not go on
# reads no other turns, of which there may be megabytes.
BEGIN = Script(f"""{READ}
local owner = redis.call('HGET', KEYS[1], 'owner')
if owner and owner ~= ARGV[1] or not owner and ARGV[5] == '0' then return {{'missing'}} end
if redis.call('EXISTS', KEYS[6]) == 1 then return {{'missing'}} end
local index = redis.call('HGET', KEYS[4], ARGV[2])
if index then return {{'stored', redis.call('LINDEX', KEYS[2], index)}} end
local held = redis.call('GET', KEYS[5])
if held and held ~= ARGV[3] then return {{'busy', held}} end
if tonumber(redis.call('HGET', KEYS[1], 'bytes') or 0) >= tonumber(ARGV[6]) then
    return {{'full'}}
end
redis.call('SET', KEYS[5], ARGV[3], 'PX', ARGV[4])
return {{'leased', read(KEYS[1], KEYS[2], KEYS[3])}}
""")

# KEYS: start. ARGV: uid instead_of ttl_ms. Returns the uid that is reserved now.
RESERVE = Script("""
local reserved = redis.call('GET', KEYS[1])
if reserved and reserved ~= ARGV[2] then return reserved end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
return ARGV[1]
""")

# KEYS: lease. ARGV: holder lease_ms.
RENEW = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
""")

# KEYS: lease. ARGV: holder.
RELEASE = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
""")

# KEYS: lease gone sent meta. ARGV: holder field ttl_ms. Returns whether the call may be sent, or
# nil if another lease is held.
SEND = Script(f"""{FENCE}{CLAIM}
if refusal(KEYS[1], KEYS[2], ARGV[1]) then return false end
return claim(KEYS[3], KEYS[4], ARGV[2], ARGV[1], ARGV[3])
""")

# KEYS: lease gone results. ARGV: holder field. Returns {the result or false}, or nil if another
# lease is held.
FIND = Script(f"""{FENCE}
if refusal(KEYS[1], KEYS[2], ARGV[1]) then return false end
return {{redis.call('HGET', KEYS[3], ARGV[2])}}
""")

# KEYS: lease gone results extras. ARGV: holder field result. Returns the result that stands, or nil
# if another lease is held.
RECORD = Script(f"""{FENCE}{NOW_MS}{ADD_EXTRAS}{KEEP_RESULT}
if refusal(KEYS[1], KEYS[2], ARGV[1]) then return false end
return keep_result(KEYS[3], KEYS[4], ARGV[2], ARGV[3])
""")

# KEYS: meta turns keys ids feedback extras lease gone live results.
# ARGV: owner key holder num_turns turn turn_id ttl_ms, token of a live turn or "".
# Returns {'stored', the turn, the keys of its session's pictures}, or {why not}.
COMMIT = Script(f"""{FENCE}{TELLS}{NOW_MS}{RENEW_EXTRAS}
local meta, turns, keys, ids = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local owner = redis.call('HGET', meta, 'owner')
if owner and owner ~= ARGV[1] then return {{'changed'}} end
local index = redis.call('HGET', keys, ARGV[2])
local turn = index and redis.call('LINDEX', turns, index)
if not turn then
    local why = refusal(KEYS[7], KEYS[8], ARGV[3])
    if why then return {{why}} end
    if ARGV[8] ~= '' and not tells(KEYS[9], ARGV[8]) then return {{'fenced'}} end
    if redis.call('LLEN', turns) ~= tonumber(ARGV[4]) then return {{'changed'}} end
    local now = now_ms()
    turn = now .. ':' .. ARGV[5]
    redis.call('HSETNX', meta, 'created', now)
    redis.call('HSET', meta, 'owner', ARGV[1], 'updated', now, 'active', ARGV[6])
    redis.call('HINCRBY', meta, 'num_turns', 1)
    redis.call('HINCRBY', meta, 'bytes', #turn)
    redis.call('RPUSH', turns, turn)
    redis.call('HSET', keys, ARGV[2], ARGV[4])
    redis.call('HSET', ids, ARGV[6], ARGV[4])
    redis.call('DEL', KEYS[10])
    for i = 1, 6 do redis.call('PEXPIRE', KEYS[i], ARGV[7]) end
end
if redis.call('GET', KEYS[7]) == ARGV[3] then redis.call('DEL', KEYS[7]) end
return {{'stored', turn, renew_extras(KEYS[6], now_ms(), ARGV[7], ':{IMAGE}')}}
""")
