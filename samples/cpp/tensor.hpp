// A dense array in C order, and NumPy's .npy files of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace sample {

struct Tensor {
    std::string dtype;  // NumPy's name: bool, int8 … int64, uint8, float16 … float64
    std::vector<std::int64_t> shape;
    std::vector<std::byte> bytes;  // little-endian
};

using Tensors = std::map<std::string, Tensor>;  // by the name of the input or output

// Bytes of one element.
// Throws Failure (unusable) for a dtype that .npy files do not have, such as bfloat16.
std::size_t item_size(const std::string& dtype);

// Bytes of an array; throws Failure (unusable) for a negative size or more than memory can hold.
std::size_t byte_size(const std::string& dtype, const std::vector<std::int64_t>& shape);

// "float32[2, 3]", as messages show it.
std::string describe(const std::string& dtype, const std::vector<std::int64_t>& shape);

// Reads a file of format version 1, 2 or 3.
// Throws Failure (unusable) if it is missing, damaged, big-endian or in Fortran order.
Tensor read_npy(const std::filesystem::path& path);

// Writes beside the place and renames, so that no half file is ever found there.
void write_npy(const std::filesystem::path& path, const Tensor& tensor);

}  // namespace sample
