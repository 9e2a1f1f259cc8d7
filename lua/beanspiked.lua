-- Sums over the segments of a set, for a library's statistics: jobs by state and the sizes of their bodies.
--
-- A segment's queues are maps from a key to a packed job, its leases are maps of such maps. How a job is packed is told in
-- beanspiked/engine/aerospike/segment/codec.py, what the keys are in store.py. The nodes sum what they hold, the client sums their sums.

-- A segment in this state has no jobs; what stands in its maps is left over from before.
local DEAD = 2

-- The newest format of segments that is known here: newer ones are not summed. A job of a later format begins with LATER or more.
local NEWEST = 1
local LATER = 64

local COUNTED = 1
local RESIZED = 2
local OUTSIDE = 4
local DETAILED = 8
local SKIPPED = 16

-- Flags, priority, delay, time to run, time of the put.
local HEAD_SIZE = 29
local COUNTERS_SIZE = 20
local RAW_SIZE_SIZE = 4
local PLACE_SIZE = 8
local DETAILS_SIZE = 16

local function has(flags, flag)
  return flags % (2 * flag) >= flag
end

-- The bytes module reads signed numbers, and nil beyond the end.
local function u16(packed, at)
  local value = bytes.get_int16_be(packed, at)
  if value ~= nil and value < 0 then
    return value + 65536
  end
  return value
end

local function u32(packed, at)
  local value = bytes.get_int32_be(packed, at)
  if value ~= nil and value < 0 then
    return value + 4294967296
  end
  return value
end

-- The size of a job's body before compression and as stored, and whether its compression was given up; nil for a damaged job.
local function measure(packed)
  local size = bytes.size(packed)
  if size < HEAD_SIZE then
    return nil
  end
  local flags = bytes.get_byte(packed, 1)
  local stored = size - HEAD_SIZE
  if flags == 0 then
    return stored, stored, false
  end
  local at = HEAD_SIZE + 1
  local raw = nil
  if has(flags, COUNTED) then
    at = at + COUNTERS_SIZE
  end
  if has(flags, RESIZED) then
    raw = u32(packed, at)
    if raw == nil then
      return nil
    end
    at = at + RAW_SIZE_SIZE
  end
  if has(flags, OUTSIDE) then
    stored = u32(packed, at + 4)
  else
    if has(flags, DETAILED) then
      local metadata = u16(packed, at + 12)
      local reason = u16(packed, at + 14)
      if metadata == nil or reason == nil then
        return nil
      end
      at = at + DETAILS_SIZE + metadata + reason
    end
    stored = size - at + 1
  end
  if stored == nil or stored < 0 then
    return nil
  end
  return raw or stored, stored, has(flags, SKIPPED)
end

-- A delayed job's key begins with when it is due, in ms, as a number of 48 bits.
local function due_ms(key)
  return u16(key, 1) * 4294967296 + u32(key, 3)
end

local function sum(total, segment, tube, now_ms)
  local form = segment["f"]
  if form ~= nil and (type(form) ~= "number" or form > NEWEST) then
    return total
  end
  if segment["st"] == DEAD or (tube ~= "" and segment["tube"] ~= tube) then
    return total
  end
  local ready, delayed, reserved, buried, damaged = 0, 0, 0, 0, 0
  local job_size, used_size, skipped_size = 0, 0, 0

  -- A job that cannot be read is one all the same, of unknown size. One of a later format is not damaged.
  local function add(packed)
    local first = bytes.size(packed) > 0 and bytes.get_byte(packed, 1) or 0
    if first < 0 or first >= LATER then
      return
    end
    local raw, stored, skipped = measure(packed)
    if raw == nil then
      damaged = damaged + 1
      return
    end
    job_size = job_size + raw
    used_size = used_size + stored
    if skipped then
      skipped_size = skipped_size + stored
    end
  end

  for _, packed in map.pairs(segment["ready"]) do
    ready = ready + 1
    add(packed)
  end
  for key, packed in map.pairs(segment["delayed"]) do
    if due_ms(key) <= now_ms then
      ready = ready + 1
    else
      delayed = delayed + 1
    end
    add(packed)
  end
  for _, packed in map.pairs(segment["buried"]) do
    buried = buried + 1
    add(packed)
  end
  for _, jobs in map.pairs(segment["held"]) do
    for _, packed in map.pairs(jobs) do
      reserved = reserved + 1
      add(packed)
    end
  end

  total["ready"] = total["ready"] + ready
  total["delayed"] = total["delayed"] + delayed
  total["reserved"] = total["reserved"] + reserved
  total["buried"] = total["buried"] + buried
  total["damaged"] = total["damaged"] + damaged
  total["job_size"] = total["job_size"] + job_size
  total["used_size"] = total["used_size"] + used_size
  total["skipped_size"] = total["skipped_size"] + skipped_size
  return total
end

local function merge(one, other)
  for name, value in map.pairs(other) do
    one[name] = one[name] + value
  end
  return one
end

-- Sum the segments of one tube, or of all when the tube is "". Delayed jobs that are due by now_ms count as ready.
function sizes(segments, tube, now_ms)
  local nothing = map {
    ready = 0,
    delayed = 0,
    reserved = 0,
    buried = 0,
    damaged = 0,
    job_size = 0,
    used_size = 0,
    skipped_size = 0,
  }
  local function add(total, segment)
    return sum(total, segment, tube, now_ms)
  end
  return segments : aggregate(nothing, add) : reduce(merge)
end
