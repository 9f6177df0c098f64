// Runs a bundle's model.plan in TensorRT or TensorRT-RTX. README.md goes through it step by step.
#include <NvInferRuntime.h>

#include <algorithm>
#include <fstream>
#include <iostream>
#include <mutex>
#include <vector>

#include "failure.hpp"
#include "program.hpp"
#include "trt_worker.hpp"

namespace {

using namespace sample;

class Logger final : public nvinfer1::ILogger {
public:
    void log(Severity severity, char const* message) noexcept override {
        if (severity > Severity::kWARNING) return;
        const std::lock_guard<std::mutex> lock(mutex_);  // contexts of many threads share it
        std::cerr << (severity == Severity::kWARNING ? "TensorRT warns: " : "TensorRT: ") << message << '\n';
    }

private:
    std::mutex mutex_;
};

std::string library_version() {
    return std::to_string(getInferLibMajorVersion()) + "." + std::to_string(getInferLibMinorVersion()) + "." +
           std::to_string(getInferLibPatchVersion()) + "." + std::to_string(getInferLibBuildVersion());
}

std::string device_capability() {
    int count = 0;
    check(cudaGetDeviceCount(&count), "no CUDA device");
    if (count == 0) throw Failure(Exit::incapable, "no CUDA device");
    int device = 0, major = 0, minor = 0;
    check(cudaGetDevice(&device), "cudaGetDevice");
    check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "cudaDeviceGetAttribute");
    check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "cudaDeviceGetAttribute");
    return std::to_string(major) + "." + std::to_string(minor);
}

// Before the plan is opened: it is bound to the version and the architecture it was built for.
void check_engine(const EngineInfo& engine, const std::string& folder, bool any_version) {
    const std::string hint = "toolkit build " + folder + " makes an engine for this machine";
    if (engine.flavour != TENSORRT_FLAVOUR) {
        throw Failure(Exit::incapable, "model.plan is of " + engine.flavour + ", this program runs " TENSORRT_FLAVOUR);
    }
    const std::string version = library_version();
    if (!any_version && engine.version != version) {
        throw Failure(Exit::incapable, "model.plan is of version " + engine.version + ", this library is " + version,
                      hint + "; --version-compatible opens one that was built to be");
    }
    const std::string capability = device_capability();
    const auto& built = engine.compute_capabilities;
    if (!built.empty() && std::find(built.begin(), built.end(), capability) == built.end()) {
        std::string list;
        for (const std::string& each : built) list += (list.empty() ? "" : ", ") + each;
        throw Failure(Exit::incapable,
                      "model.plan is for compute capability " + list + ", this GPU has " + capability, hint);
    }
}

std::vector<char> read_plan(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    if (!file) throw Failure(Exit::unusable, path.string() + " cannot be read");
    std::vector<char> plan(static_cast<std::size_t>(file.tellg()));
    file.seekg(0).read(plan.data(), static_cast<std::streamsize>(plan.size()));
    if (!file) throw Failure(Exit::unusable, path.string() + " cannot be read to its end");
    return plan;
}

void check_interface(const Manifest& manifest, const nvinfer1::ICudaEngine& engine) {
    std::map<std::string, std::string> inputs, outputs;
    for (std::int32_t i = 0; i < engine.getNbIOTensors(); ++i) {
        const char* name = engine.getIOTensorName(i);
        const bool input = engine.getTensorIOMode(name) == nvinfer1::TensorIOMode::kINPUT;
        (input ? inputs : outputs)[name] = name_of(engine.getTensorDataType(name));
        if (engine.getTensorFormat(name) != nvinfer1::TensorFormat::kLINEAR) {
            throw Failure(Exit::unusable, std::string(name) + " is not in C order in this engine");
        }
    }
    hold_against(manifest.inputs, inputs, "input", "model.plan");
    hold_against(manifest.outputs, outputs, "output", "model.plan");
}

void run(const Arguments& arguments) {
    const Manifest manifest = read_manifest(arguments.bundle());
    const Tensors feeds = read_feeds(manifest, arguments.feeds());
    const int profile = arguments.number("--profile", 0, 0);
    const int count = arguments.number("--workers", 1, 1);
    const std::string folder = manifest.folder.string();
    if (!manifest.engine) {
        throw Failure(Exit::unusable, folder + " has no engine", "toolkit build " + folder + " makes one");
    }
    const bool any_version = arguments.flag("--version-compatible");
    check_engine(*manifest.engine, folder, any_version);

    // Destroyed from the last to the first: contexts, engine, runtime, logger.
    Logger logger;
    const std::unique_ptr<nvinfer1::IRuntime> runtime(nvinfer1::createInferRuntime(logger));
    if (!runtime) throw Failure(Exit::incapable, "TensorRT cannot be started; its message is above");
    // Such a plan brings host code of the version that built it, which runs as this program.
    runtime->setEngineHostCodeAllowed(any_version);
    for (const std::string& plugin : arguments.all("--plugin")) {
        if (runtime->getPluginRegistry().loadLibrary(plugin.c_str()) == nullptr) {
            throw Failure(Exit::unusable, plugin + " cannot be loaded as a plugin library");
        }
    }
    const std::vector<char> plan = read_plan(manifest.folder / "model.plan");
    const std::unique_ptr<nvinfer1::ICudaEngine> engine(runtime->deserializeCudaEngine(plan.data(), plan.size()));
    if (!engine) {
        throw Failure(Exit::incapable, "TensorRT refused model.plan; its message is above",
                      "toolkit build " + folder + " makes an engine for this machine");
    }
    check_interface(manifest, *engine);
    if (profile >= engine->getNbOptimizationProfiles()) {
        throw Failure(Exit::unusable, "--profile is " + std::to_string(profile) + ", the engine has " +
                                          std::to_string(engine->getNbOptimizationProfiles()));
    }

    std::string label = TENSORRT_FLAVOUR " " + library_version();
    std::vector<std::unique_ptr<Worker>> workers;
    for (int i = 0; i < count; ++i) {
        auto worker = std::make_unique<TrtWorker>(*engine, manifest, feeds, profile);
        if (arguments.flag("--cuda-graph")) {
            const std::string refused = worker->capture();
            if (!refused.empty()) std::cerr << "warning: runs without a CUDA graph: " << refused << '\n';
            if (i == 0 && refused.empty()) label += ", CUDA graph";
        }
        workers.push_back(std::move(worker));
    }
    drive(arguments, manifest, label, workers);
}

}  // namespace

int main(int argc, char** argv) {
    return guarded([&] {
        const Arguments arguments(argc, argv, "Runs a bundle's model.plan in " TENSORRT_FLAVOUR " on the GPU.", {
            {"--plugin", "FILE", "a library of plugins to load first; may be given again"},
            {"--profile", "N", "the engine's optimization profile [0]"},
            {"--cuda-graph", "", "capture a run and launch it as a CUDA graph, where that can be"},
            {"--version-compatible", "", "open a plan of another version, and run the host code in it"},
        });
        if (arguments.flag("--help")) {
            std::cout << arguments.usage();
        } else {
            run(arguments);
        }
    });
}
