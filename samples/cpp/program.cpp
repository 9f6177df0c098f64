#include "program.hpp"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <exception>
#include <iostream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <system_error>
#include <thread>

#include "failure.hpp"

namespace sample {
namespace {

using Clock = std::chrono::steady_clock;

const std::vector<Option> shared_options{
    {"--feeds", "DIR", "NAME.npy for every input that BUNDLE/manifest.json has"},
    {"--outputs", "DIR", "write NAME.npy for every output"},
    {"--iterations", "N", "timed runs of each worker [1]"},
    {"--warmup", "N", "untimed runs of each worker before them [0]"},
    {"--workers", "N", "threads that run the model at the same time [1]"},
    {"--json", "", "print the latencies as JSON"},
    {"--help", "", "print this"},
};

// Between the two nearest ranks, as numpy.percentile does by default.
double percentile(const std::vector<double>& sorted, double percent) {
    const double rank = percent / 100 * static_cast<double>(sorted.size() - 1);
    const auto below = static_cast<std::size_t>(std::floor(rank));
    const std::size_t above = std::min(below + 1, sorted.size() - 1);
    return sorted[below] + (rank - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

// Joins what was started, also when starting one more fails.
struct Threads {
    Threads() = default;
    Threads(const Threads&) = delete;
    Threads& operator=(const Threads&) = delete;
    ~Threads() { join(); }

    void join() {
        for (std::thread& thread : started) {
            if (thread.joinable()) thread.join();
        }
    }

    std::vector<std::thread> started;
};

// Every worker runs `count` times, all at the same time; the milliseconds of each run.
std::vector<double> run_all(const std::vector<std::unique_ptr<Worker>>& workers, int count) {
    std::vector<std::vector<double>> taken(workers.size());
    std::vector<std::exception_ptr> errors(workers.size());
    Threads threads;
    for (std::size_t index = 0; index < workers.size(); ++index) {
        threads.started.emplace_back([&, index] {
            try {
                for (int i = 0; i < count; ++i) {
                    const Clock::time_point start = Clock::now();
                    workers[index]->run();
                    taken[index].push_back(std::chrono::duration<double, std::milli>(Clock::now() - start).count());
                }
            } catch (...) {
                errors[index] = std::current_exception();
            }
        });
    }
    threads.join();
    std::vector<double> all;
    for (std::size_t index = 0; index < workers.size(); ++index) {
        if (errors[index]) std::rethrow_exception(errors[index]);
        all.insert(all.end(), taken[index].begin(), taken[index].end());
    }
    return all;
}

void write_outputs(const std::filesystem::path& folder, const Tensors& outputs) {
    std::error_code error;
    std::filesystem::create_directories(folder, error);
    if (error) throw Failure(Exit::unusable, folder.string() + " cannot be made: " + error.message());
    for (const auto& [name, tensor] : outputs) write_npy(npy_path(folder, name), tensor);
}

void print_latencies(const std::string& runtime, std::size_t workers, std::vector<double> taken, double seconds,
                     bool as_json) {
    std::sort(taken.begin(), taken.end());
    const double mean = std::accumulate(taken.begin(), taken.end(), 0.0) / static_cast<double>(taken.size());
    const std::vector<std::pair<std::string, double>> rows{
        {"min", taken.front()},           {"mean", mean},
        {"p50", percentile(taken, 50)},   {"p90", percentile(taken, 90)},
        {"p95", percentile(taken, 95)},   {"p99", percentile(taken, 99)},
        {"max", taken.back()},
    };
    const double rate = static_cast<double>(taken.size()) / seconds;
    if (as_json) {
        nlohmann::ordered_json data{{"runtime", runtime}, {"workers", workers}, {"runs", taken.size()}};
        for (const auto& [name, milliseconds] : rows) data["latency_ms"][name] = milliseconds;
        data["runs_per_second"] = rate;
        std::cout << data.dump(2) << '\n';
        return;
    }
    std::printf("%s: %zu runs, %zu at a time\n", runtime.c_str(), taken.size(), workers);
    for (const auto& [name, milliseconds] : rows) std::printf("%-5s %10.3f ms\n", name.c_str(), milliseconds);
    std::printf("%-5s %10.1f runs/s\n", "rate", rate);
}

}  // namespace

Arguments::Arguments(int argc, char** argv, std::string summary, const std::vector<Option>& own)
    : summary_(std::move(summary)),
      program_(std::filesystem::path(argc > 0 ? argv[0] : "").filename().string()),
      options_(shared_options) {
    options_.insert(options_.end() - 1, own.begin(), own.end());
    for (int i = 1; i < argc; ++i) {
        const std::string word = argv[i];
        if (word.rfind("-", 0) != 0) {
            positional_.push_back(word);
            continue;
        }
        const auto option = std::find_if(options_.begin(), options_.end(),
                                         [&](const Option& known) { return known.name == word; });
        if (option == options_.end()) throw Failure(Exit::unusable, "no option " + word, program_ + " --help");
        if (!option->value.empty() && i + 1 == argc) {
            throw Failure(Exit::unusable, word + " needs a value: " + option->value);
        }
        given_[word].push_back(option->value.empty() ? "" : argv[++i]);
    }
}

std::string Arguments::text(const std::string& name, const std::string& otherwise) const {
    const auto found = given_.find(name);
    return found == given_.end() ? otherwise : found->second.back();
}

const std::vector<std::string>& Arguments::all(const std::string& name) const {
    static const std::vector<std::string> none;
    const auto found = given_.find(name);
    return found == given_.end() ? none : found->second;
}

int Arguments::number(const std::string& name, int otherwise, int least) const {
    const std::string word = text(name, std::to_string(otherwise));
    int value = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
    if (error != std::errc() || end != word.data() + word.size() || value < least) {
        throw Failure(Exit::unusable, name + " is '" + word + "', wanted a whole number from " + std::to_string(least));
    }
    return value;
}

std::filesystem::path Arguments::bundle() const {
    if (positional_.size() != 1) {
        throw Failure(Exit::unusable, "found " + std::to_string(positional_.size()) + " bundles, wanted one",
                      program_ + " BUNDLE --feeds DIR");
    }
    return positional_.front();
}

std::filesystem::path Arguments::feeds() const {
    if (!flag("--feeds")) throw Failure(Exit::unusable, "no --feeds", program_ + " BUNDLE --feeds DIR");
    return text("--feeds", "");
}

std::string Arguments::usage() const {
    std::string text = "usage: " + program_ + " BUNDLE --feeds DIR [options]\n\n" + summary_ + "\n\n";
    for (const Option& option : options_) {
        std::string left = "  " + option.name + (option.value.empty() ? "" : " " + option.value);
        left.resize(std::max<std::size_t>(left.size() + 2, 26), ' ');
        text += left + option.help + "\n";
    }
    return text + "\nExits 0, 1 when a run failed, 2 for arguments or files that cannot be used, and 4 when\n"
                  "this machine lacks something.\n";
}

void drive(const Arguments& arguments, const Manifest& manifest, const std::string& runtime,
           const std::vector<std::unique_ptr<Worker>>& workers) {
    const int iterations = arguments.number("--iterations", 1, 1);
    if (manifest.verdict != "passed") {
        std::cerr << "warning: this bundle's proof is '" << manifest.verdict << "'\n";
    }
    run_all(workers, arguments.number("--warmup", 0, 0));
    const Clock::time_point start = Clock::now();
    std::vector<double> taken = run_all(workers, iterations);
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    if (arguments.flag("--outputs")) write_outputs(arguments.text("--outputs", ""), workers.front()->outputs());
    print_latencies(runtime, workers.size(), std::move(taken), seconds, arguments.flag("--json"));
}

int guarded(const std::function<void()>& body) {
    try {
        body();
        return 0;
    } catch (const Failure& failure) {
        std::cerr << "error: " << failure.what() << '\n';
        if (!failure.hint().empty()) std::cerr << "\nhint: " << failure.hint() << '\n';
        return static_cast<int>(failure.code());
    } catch (const std::exception& error) {
        std::cerr << "error: " << error.what() << '\n';
        return static_cast<int>(Exit::failed);
    }
}

}  // namespace sample
