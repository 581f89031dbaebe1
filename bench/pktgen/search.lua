-- SPDX-License-Identifier: BSD-3-Clause
-- RFC 2544's throughput, as a search: the highest rate at which no more than a given share of frames is lost. Knows no
-- pktgen: a trial is a function of a rate (per cent of the link) that answers {sent=, received=, rate=}; `rate` in the
-- answer is what was really sent, when the generator did not reach what was asked.
--
-- NDR is a search with loss 0, PDR one with 0.005. A rate holds when at least half of its trials do, and the rate that was
-- found is confirmed by a longer trial before it is stated.
local search = {}

local function loss(trial)
  if trial.sent == 0 then return 1 end
  return math.max(0, trial.sent - trial.received) / trial.sent
end
search.loss = loss

-- Whether the rate holds: `options.votes` trials (1, 3, ...), the majority decides and no more are run than it takes.
local function holds(run, rate, options)
  local good, bad, last = 0, 0, nil
  local majority = math.floor(options.votes / 2) + 1
  while good < majority and bad < majority do
    last = run(rate, options.seconds)
    if loss(last) <= options.loss then good = good + 1 else bad = bad + 1 end
  end
  return good >= majority, last
end

-- options: low, high (per cent), precision (per cent), loss (share), votes, seconds, confirm_seconds (0: none), note (function).
-- Answers {rate=, limited_by="device"|"generator"|"nothing", trials=, confirmed=}; rate 0 when not even `low` holds.
function search.highest(run, options)
  local trials = 0
  local reached = options.high
  local function counted(rate, seconds)
    trials = trials + 1
    local trial = run(rate, seconds)
    if trial.rate and trial.rate < rate * 0.99 then reached = math.min(reached, trial.rate) end
    if options.note then options.note(rate, trial, loss(trial)) end
    return trial
  end

  local low, high = 0, options.high
  if holds(counted, options.high, options) then
    -- Nothing above can be asked for: the line is full, or the generator cannot fill it.
    low = reached
    high = reached
  elseif holds(counted, options.low, options) then
    low = options.low
    while high - low > options.precision do
      local middle = (low + high) / 2
      if holds(counted, middle, options) then low = middle else high = middle end
    end
  end
  local limited = "device"
  if reached < options.high * 0.99 and low >= reached * 0.99 then limited = "generator"
  elseif low >= options.high then limited = "nothing" end

  local confirmed = nil
  if low > 0 and options.confirm_seconds and options.confirm_seconds > 0 then
    -- A rate that does not hold for longer is no result: step down until one does.
    for _ = 1, 5 do
      confirmed = loss(counted(low, options.confirm_seconds)) <= options.loss
      if confirmed then break end
      low = math.max(options.low, low - 2 * options.precision)
      limited = "device"
    end
    if not confirmed then low = 0 end
  end
  return {rate = low, limited_by = low > 0 and limited or "device", trials = trials, confirmed = confirmed}
end

return search
