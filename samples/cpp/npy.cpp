// The format is NumPy's own: magic, version, length, a Python dictionary as text, then the data.
#include <array>
#include <cctype>
#include <cstring>
#include <fstream>
#include <limits>
#include <system_error>
#include <utility>

#include "failure.hpp"
#include "tensor.hpp"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the samples are for little-endian machines");

namespace sample {
namespace {

struct Kind {
    const char* dtype;
    const char* descr;
    std::size_t size;
};

constexpr std::array<Kind, 9> kinds{{
    {"bool", "|b1", 1}, {"int8", "|i1", 1}, {"uint8", "|u1", 1},
    {"int16", "<i2", 2}, {"int32", "<i4", 4}, {"int64", "<i8", 8},
    {"float16", "<f2", 2}, {"float32", "<f4", 4}, {"float64", "<f8", 8},
}};

constexpr char magic[] = "\x93NUMPY";
constexpr std::size_t magic_size = 6;
constexpr std::size_t alignment = 64;  // of the data, as NumPy writes it

std::string known_dtypes() {
    std::string text;
    for (const Kind& kind : kinds) text += (text.empty() ? "" : ", ") + std::string(kind.dtype);
    return text;
}

const Kind& kind_of(const std::string& dtype) {
    for (const Kind& kind : kinds) {
        if (dtype == kind.dtype) return kind;
    }
    throw Failure(Exit::unusable, ".npy files have no dtype " + dtype, "they have " + known_dtypes());
}

// Text from a file as a message may show it: printable, and not long.
std::string shown(const std::string& text) {
    std::string safe;
    for (const char each : text.substr(0, 40)) safe += each >= ' ' && each <= '~' ? each : '?';
    return "'" + safe + (text.size() > 40 ? "…'" : "'");
}

// Reads the dictionary {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }, and only that.
class Header {
public:
    Header(std::string text, std::string file) : text_(std::move(text)), file_(std::move(file)) {}

    Tensor read() {
        bool descr = false, order = false, shape = false;
        Tensor tensor;
        expect('{');
        while (!take('}')) {
            const std::string key = quoted();
            expect(':');
            if (key == "descr" && !std::exchange(descr, true)) {
                tensor.dtype = dtype();
            } else if (key == "fortran_order" && !std::exchange(order, true)) {
                c_order();
            } else if (key == "shape" && !std::exchange(shape, true)) {
                tensor.shape = tuple();
            } else {
                damaged("key " + shown(key));
            }
            if (!take(',')) {
                expect('}');
                break;
            }
        }
        blanks();
        if (at_ != text_.size()) damaged("text after the dictionary");
        if (!(descr && order && shape)) damaged("a key is missing");
        return tensor;
    }

private:
    [[noreturn]] void damaged(const std::string& what) const {
        throw Failure(Exit::unusable, file_ + " has a damaged .npy header: " + what);
    }

    void blanks() {
        while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_]))) ++at_;
    }

    bool take(char wanted) {
        blanks();
        if (at_ >= text_.size() || text_[at_] != wanted) return false;
        ++at_;
        return true;
    }

    void expect(char wanted) {
        if (!take(wanted)) damaged(std::string("no '") + wanted + "' at " + std::to_string(at_));
    }

    std::string quoted() {
        expect('\'');
        const std::size_t end = text_.find('\'', at_);
        if (end == std::string::npos) damaged("a string has no end");
        const std::string found = text_.substr(at_, end - at_);
        at_ = end + 1;
        return found;
    }

    std::string dtype() {
        blanks();
        if (at_ < text_.size() && text_[at_] == '[') {
            throw Failure(Exit::unusable, file_ + " holds records, not an array of numbers");
        }
        const std::string descr = quoted();
        for (const Kind& kind : kinds) {
            if (descr == kind.descr) return kind.dtype;
        }
        throw Failure(Exit::unusable, file_ + " has dtype " + shown(descr) + ", which is not read here",
                      "write it as little-endian " + known_dtypes());
    }

    void c_order() {
        blanks();
        if (text_.compare(at_, 4, "True") == 0) {
            throw Failure(Exit::unusable, file_ + " is in Fortran order, wanted C order",
                          "numpy.save(path, numpy.ascontiguousarray(array))");
        }
        if (text_.compare(at_, 5, "False") != 0) damaged("fortran_order");
        at_ += 5;
    }

    std::vector<std::int64_t> tuple() {
        std::vector<std::int64_t> sizes;
        expect('(');
        while (!take(')')) {
            sizes.push_back(number());
            if (!take(',')) {
                if (sizes.size() == 1) damaged("shape is not a tuple");
                expect(')');
                break;
            }
        }
        return sizes;
    }

    std::int64_t number() {
        blanks();
        const std::size_t begin = at_;
        while (at_ < text_.size() && std::isdigit(static_cast<unsigned char>(text_[at_]))) ++at_;
        if (at_ == begin || at_ - begin > 18) damaged("a size of its shape");
        return std::stoll(text_.substr(begin, at_ - begin));
    }

    std::string text_;
    std::string file_;
    std::size_t at_ = 0;
};

std::size_t little_endian(const unsigned char* bytes, std::size_t count) {
    std::size_t value = 0;
    for (std::size_t i = count; i-- > 0;) value = value << 8 | bytes[i];
    return value;
}

}  // namespace

std::size_t item_size(const std::string& dtype) { return kind_of(dtype).size; }

std::size_t byte_size(const std::string& dtype, const std::vector<std::int64_t>& shape) {
    // Checked before a size of 0 hides the product of the others.
    std::size_t count = item_size(dtype);
    bool empty = false;
    for (const std::int64_t size : shape) {
        const std::size_t most = static_cast<std::size_t>(std::numeric_limits<std::int64_t>::max());
        if (size < 0 || (size > 0 && count > most / static_cast<std::size_t>(size))) {
            throw Failure(Exit::unusable, describe(dtype, shape) + " is no array that memory holds");
        }
        empty = empty || size == 0;
        if (size > 0) count *= static_cast<std::size_t>(size);
    }
    return empty ? 0 : count;
}

std::string describe(const std::string& dtype, const std::vector<std::int64_t>& shape) {
    std::string text;
    for (const std::int64_t size : shape) text += (text.empty() ? "" : ", ") + std::to_string(size);
    return dtype + "[" + text + "]";
}

Tensor read_npy(const std::filesystem::path& path) {
    const std::string name = path.string();
    std::ifstream file(path, std::ios::binary);
    std::error_code error;
    const std::uintmax_t size = std::filesystem::file_size(path, error);
    if (!file || error) throw Failure(Exit::unusable, name + " cannot be read: no such file");

    std::array<unsigned char, 12> start{};
    file.read(reinterpret_cast<char*>(start.data()), magic_size + 2);
    if (!file || std::memcmp(start.data(), magic, magic_size) != 0) {
        throw Failure(Exit::unusable, name + " is no .npy file");
    }
    const unsigned version = start[magic_size];
    if (version < 1 || version > 3 || start[magic_size + 1] != 0) {
        throw Failure(Exit::unusable, name + " has .npy version " + std::to_string(version) + "." +
                                          std::to_string(start[magic_size + 1]) + ", wanted 1.0 to 3.0");
    }
    const std::size_t width = version == 1 ? 2 : 4;
    file.read(reinterpret_cast<char*>(start.data()) + magic_size + 2, static_cast<std::streamsize>(width));
    const std::size_t length = little_endian(start.data() + magic_size + 2, width);
    const std::size_t before = magic_size + 2 + width;
    if (!file || length > size - before) throw Failure(Exit::unusable, name + " ends in its header");
    std::string header(length, '\0');
    file.read(header.data(), static_cast<std::streamsize>(length));

    Tensor tensor = Header(header, name).read();
    const std::size_t wanted = byte_size(tensor.dtype, tensor.shape);
    const std::uintmax_t found = size - before - length;
    if (found != wanted) {
        throw Failure(Exit::unusable, name + " has " + std::to_string(found) + " bytes of data, but " +
                                          describe(tensor.dtype, tensor.shape) + " is " +
                                          std::to_string(wanted));
    }
    tensor.bytes.resize(wanted);
    file.read(reinterpret_cast<char*>(tensor.bytes.data()), static_cast<std::streamsize>(wanted));
    if (!file) throw Failure(Exit::unusable, name + " cannot be read to its end");
    for (const std::byte value : tensor.bytes) {
        if (tensor.dtype != "bool") break;
        if (value > std::byte{1}) throw Failure(Exit::unusable, name + " has a bool that is neither 0 nor 1");
    }
    return tensor;
}

void write_npy(const std::filesystem::path& path, const Tensor& tensor) {
    std::string shape;
    for (const std::int64_t size : tensor.shape) shape += std::to_string(size) + ", ";
    if (tensor.shape.size() == 1) shape.pop_back();  // (3,), as NumPy writes it
    if (tensor.shape.size() > 1) shape.resize(shape.size() - 2);
    std::string header = std::string("{'descr': '") + kind_of(tensor.dtype).descr +
                         "', 'fortran_order': False, 'shape': (" + shape + "), }";
    const std::size_t before = magic_size + 4;
    header.append(alignment - 1 - (before + header.size()) % alignment, ' ');
    header += '\n';
    const auto length = static_cast<std::uint16_t>(header.size());  // 64 dimensions need 1,400 bytes
    const std::array<char, 4> counts{1, 0, static_cast<char>(length & 0xff), static_cast<char>(length >> 8)};

    std::filesystem::path part = path;
    part += ".part";
    std::ofstream file(part, std::ios::binary | std::ios::trunc);
    file.write(magic, magic_size).write(counts.data(), counts.size()).write(header.data(), length);
    file.write(reinterpret_cast<const char*>(tensor.bytes.data()),
               static_cast<std::streamsize>(tensor.bytes.size()));
    file.close();
    std::error_code error;
    if (file) std::filesystem::rename(part, path, error);
    if (!file || error) {
        std::filesystem::remove(part, error);
        throw Failure(Exit::unusable, path.string() + " cannot be written");
    }
}

}  // namespace sample
