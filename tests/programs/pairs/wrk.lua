-- Compares every body with the file named after "--", and prints "right N wrong N errors N" at the end.
local threads = {}

function setup(thread)
    table.insert(threads, thread)
end

function init(arguments)
    local file = assert(io.open(arguments[1], "rb"))
    page = file:read("*a")
    file:close()
    right, wrong = 0, 0
end

function response(status, _, body)
    if status == 200 and body == page then
        right = right + 1
    else
        wrong = wrong + 1
    end
end

function done(summary)
    local right, wrong = 0, 0
    for _, thread in ipairs(threads) do
        right = right + thread:get("right")
        wrong = wrong + thread:get("wrong")
    end
    local errors = summary.errors
    local all = errors.connect + errors.read + errors.write + errors.status + errors.timeout
    print(string.format("right %d wrong %d errors %d", right, wrong, all))
end
