// What manifest.json of a bundle says, as far as running the model needs it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "tensor.hpp"

namespace sample {

// A size, or the name of a dimension, or a sum of names: "past_sequence + sequence".
using Dim = std::variant<std::int64_t, std::string>;

struct TensorInfo {
    std::string name;
    std::string dtype;
    std::vector<Dim> shape;
};

struct Range {
    std::int64_t min, opt, max;
};

struct EngineInfo {
    std::string flavour;  // tensorrt or tensorrt-rtx
    std::string version;
    std::vector<std::string> compute_capabilities;  // "8.9"; empty: the builder's default
};

struct Manifest {
    std::filesystem::path folder;
    std::string verdict;
    std::vector<TensorInfo> inputs;
    std::vector<TensorInfo> outputs;
    std::map<std::string, Range> shapes;  // by the dimension's name
    std::optional<EngineInfo> engine;
};

// Throws Failure (unusable) if the folder is no bundle, or one of another format.
Manifest read_manifest(const std::filesystem::path& folder);

// Reads NAME.npy for every input and holds it against the manifest: dtype, rank, sizes; a named
// dimension has one size everywhere, within its range. Throws Failure (unusable).
Tensors read_feeds(const Manifest& manifest, const std::filesystem::path& folder);

// The file a tensor's array is in. Throws Failure (unusable) for a name that is no file's.
std::filesystem::path npy_path(const std::filesystem::path& folder, const std::string& name);

// What a graph or engine says about itself must be what the manifest says of it.
// Throws Failure (unusable). `file` is named in the message.
void hold_against(const std::vector<TensorInfo>& wanted, const std::map<std::string, std::string>& dtypes,
                  const std::string& what, const std::string& file);

}  // namespace sample
