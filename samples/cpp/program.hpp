// What both programs share: the command line, running workers at the same time, timing them.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "manifest.hpp"
#include "tensor.hpp"

namespace sample {

struct Option {
    std::string name;
    std::string value;  // what its value is called in the help; empty for a flag
    std::string help;
};

// BUNDLE --feeds DIR [--outputs DIR] …, and what one program has beside that.
class Arguments {
public:
    // Throws Failure (unusable) for what it does not know.
    Arguments(int argc, char** argv, std::string summary, const std::vector<Option>& own);

    [[nodiscard]] bool flag(const std::string& name) const { return given_.count(name) > 0; }
    [[nodiscard]] std::string text(const std::string& name, const std::string& otherwise) const;
    [[nodiscard]] const std::vector<std::string>& all(const std::string& name) const;
    // Throws Failure (unusable) for what is no whole number from `least` on.
    [[nodiscard]] int number(const std::string& name, int otherwise, int least) const;
    [[nodiscard]] std::filesystem::path bundle() const;  // throws when it was left out
    [[nodiscard]] std::filesystem::path feeds() const;   // likewise
    [[nodiscard]] std::string usage() const;

private:
    std::string summary_;
    std::string program_;
    std::vector<Option> options_;
    std::vector<std::string> positional_;
    std::map<std::string, std::vector<std::string>> given_;
};

// One thread's way to run the model; what it needs of its own, such as a context, is its own.
class Worker {
public:
    Worker() = default;
    Worker(const Worker&) = delete;
    Worker& operator=(const Worker&) = delete;
    virtual ~Worker() = default;

    virtual void run() = 0;                  // from the feeds on the host to outputs on the host
    [[nodiscard]] virtual Tensors outputs() const = 0;  // of the last run
};

// Warms up, runs every worker in a thread of its own, writes the outputs, prints the latencies.
void drive(const Arguments& arguments, const Manifest& manifest, const std::string& runtime,
           const std::vector<std::unique_ptr<Worker>>& workers);

// Runs the program's body; a failure becomes its message on stderr and its exit code.
int guarded(const std::function<void()>& body);

}  // namespace sample
