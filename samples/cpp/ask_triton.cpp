// Asks a Triton server to run a model, in KServe's protocol over HTTP with Triton's binary tensors.
//
// BUNDLE is a version of the model in its repository, which has the bundle's manifest.json, or the
// bundle itself. Every worker has a connection of its own.
#include <array>
#include <cstring>
#include <iostream>
#include <nlohmann/json.hpp>

#include "failure.hpp"
#include "http.hpp"
#include "program.hpp"

namespace {

using namespace sample;

constexpr std::array<std::pair<const char*, const char*>, 9> dtypes{{
    {"bool", "BOOL"}, {"int8", "INT8"}, {"uint8", "UINT8"}, {"int16", "INT16"}, {"int32", "INT32"},
    {"int64", "INT64"}, {"float16", "FP16"}, {"float32", "FP32"}, {"float64", "FP64"},
}};

std::string triton_name(const std::string& dtype) {
    for (const auto& [ours, theirs] : dtypes) {
        if (dtype == ours) return theirs;
    }
    throw Failure(Exit::unusable, "a request has no dtype " + dtype);
}

std::string numpy_name(const std::string& datatype) {
    for (const auto& [ours, theirs] : dtypes) {
        if (datatype == theirs) return ours;
    }
    throw Failure(Exit::failed, "the server's reply has the datatype " + datatype + ", which .npy files have not");
}

void append(std::vector<std::byte>& body, const void* data, std::size_t size) {
    const auto* first = static_cast<const std::byte*>(data);
    body.insert(body.end(), first, first + size);
}

class TritonWorker : public Worker {
public:
    TritonWorker(const std::string& server, const std::string& model, const std::string& version, const Tensors& feeds)
        : connection_(server),
          path_("/v2/models/" + model + (version.empty() ? "" : "/versions/" + version) + "/infer") {
        nlohmann::json request{{"inputs", nlohmann::json::array()}, {"parameters", {{"binary_data_output", true}}}};
        for (const auto& [name, tensor] : feeds) {
            request["inputs"].push_back({{"name", name},
                                         {"shape", tensor.shape},
                                         {"datatype", triton_name(tensor.dtype)},
                                         {"parameters", {{"binary_data_size", tensor.bytes.size()}}}});
        }
        const std::string head = request.dump();
        append(body_, head.data(), head.size());
        for (const auto& [name, tensor] : feeds) append(body_, tensor.bytes.data(), tensor.bytes.size());
        headers_ = {{"Content-Type", "application/octet-stream"},
                    {"Inference-Header-Content-Length", std::to_string(head.size())}};
    }

    void run() override {
        reply_ = connection_.post(path_, headers_, body_);
        if (reply_.status != 200) throw Failure(Exit::failed, "the server refuses: " + error());
    }

    [[nodiscard]] Tensors outputs() const override {
        const auto* text = reinterpret_cast<const char*>(reply_.body.data());
        const auto length = reply_.headers.find("inference-header-content-length");
        std::size_t at = length == reply_.headers.end() ? reply_.body.size() : std::stoul(length->second);
        if (at > reply_.body.size()) throw Failure(Exit::failed, "the server's reply ends in its header");
        Tensors found;
        try {
            const auto said = nlohmann::json::parse(text, text + at);
            for (const auto& output : said.at("outputs")) {
                Tensor tensor{numpy_name(output.at("datatype")), output.at("shape"), {}};
                tensor.bytes.resize(byte_size(tensor.dtype, tensor.shape));
                const std::size_t size = output.at("parameters").at("binary_data_size");
                if (size != tensor.bytes.size() || size > reply_.body.size() - at) {
                    throw Failure(Exit::failed, "the server's reply has " + std::to_string(size) + " bytes for " +
                                                    describe(tensor.dtype, tensor.shape));
                }
                if (size > 0) std::memcpy(tensor.bytes.data(), reply_.body.data() + at, size);
                at += size;
                found.emplace(output.at("name"), std::move(tensor));
            }
        } catch (const nlohmann::json::exception& error) {
            throw Failure(Exit::failed, std::string("the server's reply is not understood: ") + error.what());
        }
        return found;
    }

private:
    [[nodiscard]] std::string error() const {
        const auto* text = reinterpret_cast<const char*>(reply_.body.data());
        const auto said = nlohmann::json::parse(text, text + reply_.body.size(), nullptr, false);
        if (said.is_object() && said.contains("error") && said["error"].is_string()) return said["error"];
        return "HTTP " + std::to_string(reply_.status);
    }

    Connection connection_;
    std::string path_;
    std::map<std::string, std::string> headers_;
    std::vector<std::byte> body_;
    Reply reply_;
};

void run(const Arguments& arguments) {
    const Manifest manifest = read_manifest(arguments.bundle());
    const Tensors feeds = read_feeds(manifest, arguments.feeds());
    if (!arguments.flag("--model")) throw Failure(Exit::unusable, "no --model", "--model NAME, as the server calls it");
    const std::string server = arguments.text("--server", "localhost:8000");
    const std::string model = arguments.text("--model", "");
    const int count = arguments.number("--workers", 1, 1);
    std::vector<std::unique_ptr<Worker>> workers;
    for (int i = 0; i < count; ++i) {
        workers.push_back(std::make_unique<TritonWorker>(server, model, arguments.text("--version", ""), feeds));
    }
    drive(arguments, manifest, model + " at " + server, workers);
}

}  // namespace

int main(int argc, char** argv) {
    return guarded([&] {
        const Arguments arguments(argc, argv, "Asks a Triton server to run a model, over HTTP.", {
            {"--server", "HOST:PORT", "where it answers HTTP [localhost:8000]"},
            {"--model", "NAME", "what the server calls the model"},
            {"--version", "N", "which version of it [the one that the server chooses]"},
        });
        if (arguments.flag("--help")) {
            std::cout << arguments.usage();
        } else {
            run(arguments);
        }
    });
}
