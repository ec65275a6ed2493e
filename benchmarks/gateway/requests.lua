-- Chat completions for wrk.
--
--     wrk -s requests.lua URL -- BODY [KEY [MODELS KEYS]]
--
-- BODY is a file with a request for the model "bench". MODELS and KEYS are files with a name and a key a line: requests go
-- to each model in turn, with each key in turn, of either at most a thousand, evenly chosen. An empty file leaves the
-- model or KEY as it is. Prints one line of JSON when it has ended.

local MOST = 1000

local function read(path)
   local file = assert(io.open(path, "rb"))
   local text = file:read("*a")
   file:close()
   return text
end

local function some_lines(path, otherwise)
   local all, found = {}, {}
   for line in io.lines(path) do all[#all + 1] = line end
   if #all == 0 then all[1] = otherwise end
   local count = math.min(#all, MOST)
   for at = 0, count - 1 do found[at + 1] = all[math.floor(at * #all / count) + 1] end
   return found
end

local function headers(key)
   local found = { ["Content-Type"] = "application/json", ["Host"] = wrk.headers["Host"] }
   if key ~= nil and key ~= "" then found["Authorization"] = "Bearer " .. key end
   return found
end

function init(args)
   local body, key = read(args[1]), args[2]
   wrk.method, wrk.body, wrk.headers = "POST", body, headers(key)
   if args[3] == nil then return end
   local models, keys = some_lines(args[3], "bench"), some_lines(args[4], key)
   local many, count, at = {}, math.max(#models, #keys), 0
   for one = 0, count - 1 do
      local model = models[one % #models + 1]:gsub("%%", "%%%%")
      local named = body:gsub('"bench"', '"' .. model .. '"')
      many[one] = wrk.format("POST", nil, headers(keys[one % #keys + 1]), named)
   end
   function request() -- only here: without it wrk sends the one request that it has formatted
      at = (at + 1) % count
      return many[at]
   end
end

function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      'FIGURES {"requests": %d, "seconds": %.6f, "p50": %.1f, "p99": %.1f, "max": %.1f, "refused": %d, "broken": %d}\n',
      summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99), latency.max,
      errors.status, errors.connect + errors.read + errors.write + errors.timeout
   ))
end
