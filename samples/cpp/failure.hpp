// How these programs fail: one line that says what was found and what was wanted, and an exit code.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

namespace sample {

enum class Exit : int {
    failed = 1,      // the run itself failed
    unusable = 2,    // arguments, feeds or files that cannot be used
    incapable = 4,   // this machine lacks something: a library, a GPU, the right version
};

class Failure : public std::runtime_error {
public:
    Failure(Exit code, const std::string& message, std::string hint = "")
        : std::runtime_error(message), code_(code), hint_(std::move(hint)) {}

    [[nodiscard]] Exit code() const noexcept { return code_; }
    [[nodiscard]] const std::string& hint() const noexcept { return hint_; }

private:
    Exit code_;
    std::string hint_;
};

}  // namespace sample
