#include "manifest.hpp"

#include <fstream>
#include <nlohmann/json.hpp>

#include "failure.hpp"

namespace sample {
namespace {

using nlohmann::json;

std::vector<TensorInfo> tensors(const json& records) {
    std::vector<TensorInfo> found;
    for (const json& record : records) {
        TensorInfo info{record.at("name"), record.at("dtype"), {}};
        for (const json& dim : record.at("shape")) {
            if (dim.is_number_integer()) {
                info.shape.emplace_back(dim.get<std::int64_t>());
            } else {
                info.shape.emplace_back(dim.get<std::string>());
            }
        }
        found.push_back(std::move(info));
    }
    return found;
}

Manifest manifest_of(const json& data, const std::filesystem::path& folder) {
    Manifest manifest{folder, data.at("verdict"), tensors(data.at("inputs")), tensors(data.at("outputs")), {}, {}};
    for (const auto& [name, range] : data.at("shapes").items()) {
        manifest.shapes[name] = {range.at(0), range.at(1), range.at(2)};
    }
    if (const json& engine = data.at("engine"); !engine.is_null()) {
        manifest.engine = {engine.at("flavour"), engine.at("version"), engine.at("compute_capabilities")};
    }
    return manifest;
}

// The sizes of named dimensions, as the feeds show them.
class Sizes {
public:
    Sizes(const Manifest& manifest) : manifest_(manifest) {}

    // A name by itself gets its size from the first feed that has it.
    void bind(const TensorInfo& info, const Tensor& feed) {
        for (std::size_t axis = 0; axis < info.shape.size(); ++axis) {
            const auto* name = std::get_if<std::string>(&info.shape[axis]);
            if (name != nullptr && terms(*name).size() == 1) sizes_.emplace(*name, feed.shape[axis]);
        }
    }

    void check(const TensorInfo& info, const Tensor& feed) const {
        for (std::size_t axis = 0; axis < info.shape.size(); ++axis) {
            const auto* name = std::get_if<std::string>(&info.shape[axis]);
            const auto* fixed = std::get_if<std::int64_t>(&info.shape[axis]);
            const std::int64_t wanted = fixed != nullptr ? *fixed : size_of(*name, feed.shape[axis]);
            if (feed.shape[axis] != wanted) {
                throw Failure(Exit::unusable, info.name + " is " + describe(feed.dtype, feed.shape) + ", wanted " +
                                                  std::to_string(wanted) + " along axis " + std::to_string(axis) +
                                                  (name != nullptr ? " (" + *name + ")" : ""));
            }
        }
    }

    void check_ranges() const {
        for (const auto& [name, size] : sizes_) {
            const auto range = manifest_.shapes.find(name);
            if (range != manifest_.shapes.end() && (size < range->second.min || size > range->second.max)) {
                throw Failure(Exit::unusable, name + " is " + std::to_string(size) + " in the feeds, and " +
                                                  std::to_string(range->second.min) + " to " +
                                                  std::to_string(range->second.max) + " is what was built and proven");
            }
        }
    }

private:
    static std::vector<std::string> terms(const std::string& sum) {
        std::vector<std::string> names;
        std::size_t begin = 0, end;
        while ((end = sum.find(" + ", begin)) != std::string::npos) {
            names.push_back(sum.substr(begin, end - begin));
            begin = end + 3;
        }
        names.push_back(sum.substr(begin));
        return names;
    }

    // A sum of which a term stands nowhere by itself is whatever it is.
    std::int64_t size_of(const std::string& sum, std::int64_t found) const {
        std::int64_t total = 0;
        for (const std::string& name : terms(sum)) {
            const auto size = sizes_.find(name);
            if (size == sizes_.end()) return found;
            total += size->second;
        }
        return total;
    }

    const Manifest& manifest_;
    std::map<std::string, std::int64_t> sizes_;
};

}  // namespace

Manifest read_manifest(const std::filesystem::path& folder) {
    const std::filesystem::path path = folder / "manifest.json";
    std::ifstream file(path, std::ios::binary);
    if (!file) {
        throw Failure(Exit::unusable, folder.string() + " has no manifest.json, so it is no bundle",
                      "toolkit export RECIPE -o DIR makes one");
    }
    try {
        const json data = json::parse(file);
        if (data.at("format") != 1) {
            throw Failure(Exit::unusable, path.string() + " has format " + data.at("format").dump() + ", wanted 1");
        }
        return manifest_of(data, folder);
    } catch (const json::exception& error) {
        throw Failure(Exit::unusable, path.string() + " is not a manifest: " + error.what());
    }
}

std::filesystem::path npy_path(const std::filesystem::path& folder, const std::string& name) {
    if (name.empty() || name.front() == '.' || name.find('/') != std::string::npos) {
        throw Failure(Exit::unusable, "'" + name + "' is a tensor's name that cannot be a file's");
    }
    return folder / (name + ".npy");
}

Tensors read_feeds(const Manifest& manifest, const std::filesystem::path& folder) {
    Tensors feeds;
    Sizes sizes(manifest);
    for (const TensorInfo& info : manifest.inputs) {
        Tensor feed = read_npy(npy_path(folder, info.name));
        if (feed.dtype != info.dtype || feed.shape.size() != info.shape.size()) {
            throw Failure(Exit::unusable, info.name + " is " + describe(feed.dtype, feed.shape) + ", wanted " +
                                              info.dtype + " of " + std::to_string(info.shape.size()) + " dimensions");
        }
        sizes.bind(info, feed);
        feeds.emplace(info.name, std::move(feed));
    }
    for (const TensorInfo& info : manifest.inputs) sizes.check(info, feeds.at(info.name));
    sizes.check_ranges();
    return feeds;
}

void hold_against(const std::vector<TensorInfo>& wanted, const std::map<std::string, std::string>& dtypes,
                  const std::string& what, const std::string& file) {
    for (const TensorInfo& info : wanted) {
        const auto found = dtypes.find(info.name);
        const std::string dtype = found == dtypes.end() ? "none of that name" : found->second;
        if (dtype != info.dtype) {
            throw Failure(Exit::unusable, "manifest.json says " + what + " " + info.name + " is " + info.dtype + ", " +
                                              file + " says " + dtype);
        }
    }
    if (dtypes.size() != wanted.size()) {
        throw Failure(Exit::unusable, file + " has " + std::to_string(dtypes.size()) + " " + what +
                                          "s, manifest.json says " + std::to_string(wanted.size()));
    }
}

}  // namespace sample
