/// What a file holds, judged by its first bytes, where that is not what its name says.
///
/// Downloads go wrong in a few ways that leave a file of the right name with other contents. Errors name the contents.
public enum FileKind: Sendable, Equatable {
  /// Nothing.
  case empty
  /// What a clone without Git LFS leaves in place of a large file.
  case gitLFSPointer
  /// HTML or XML: the error or login page of a server.
  case webPage
  /// A line of text, such as a server's error message, with its beginning.
  case text(String)
  /// Zeros only: space that was reserved for a download which did not take place.
  case zeros
  /// The format of llama.cpp and stable-diffusion.cpp.
  case gguf
  /// What `torch.save` writes: `.bin`, `.pt`, `.pth`, `.ckpt`; also any other ZIP archive.
  case zipArchive
  /// What `torch.save` wrote before version 1.6.
  case pickle
  /// gzip, bzip2, xz, zstd or 7z.
  case compressedArchive
  /// A container of Keras.
  case hdf5
  /// An array of NumPy.
  case numpyArray
  /// A macOS file with attributes of another file (`._name`).
  case appleDouble

  /// How many of a file's first bytes decide.
  public static let prefixByteCount = 512

  /// The kind of a file of binary data or text; nil when the beginning tells nothing against it.
  ///
  /// - Parameters:
  ///   - beginning: the first ``prefixByteCount`` bytes, or the whole file where it is shorter.
  ///   - isTextExpected: whether the file should be JSON or text, so that text is no sign of a mistake.
  public init?(beginning: some Collection<UInt8>, isTextExpected: Bool) {
    let bytes = Array(beginning.prefix(Self.prefixByteCount))
    guard !bytes.isEmpty else {
      self = .empty
      return
    }
    if !isTextExpected, Self.mayBeSafetensors(bytes) { return nil }
    if let kind = Self.signatures.first(where: { bytes.starts(with: $0.signature) })?.kind {
      self = kind
    } else if bytes.count > 8, bytes.allSatisfy({ $0 == 0 }) {
      self = .zeros
    } else if bytes[0] == 0x80, bytes.count > 2, (2...5).contains(bytes[1]) {
      self = .pickle
    } else if Self.isWebPage(bytes) {
      self = .webPage
    } else if !isTextExpected,
      bytes.allSatisfy({ (0x20...0x7e).contains($0) || $0 == 0x0a || $0 == 0x0d || $0 == 0x09 })
    {
      self = .text(String(decoding: bytes.prefix(60).map { $0 < 0x20 ? 0x20 : $0 }, as: UTF8.self))
    } else {
      return nil
    }
  }

  /// A header length within the format's limit, and the brace that begins the header.
  private static func mayBeSafetensors(_ bytes: [UInt8]) -> Bool {
    guard bytes.count > 8, bytes[8] == UInt8(ascii: "{") else { return false }
    return bytes[..<8].reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) } <= SafetensorsHeader.maxHeaderBytes
  }

  private static let signatures: [(signature: [UInt8], kind: FileKind)] = [
    (Array("version https://git-lfs.github.com/spec/".utf8), .gitLFSPointer),
    (Array("version https://hawser.github.com/spec/".utf8), .gitLFSPointer),
    (Array("GGUF".utf8), .gguf), (Array("ggml".utf8), .gguf), (Array("lmgg".utf8), .gguf), (Array("tjgg".utf8), .gguf),
    (Array("PK\u{3}\u{4}".utf8), .zipArchive), (Array("PK\u{5}\u{6}".utf8), .zipArchive),
    ([0x1f, 0x8b, 0x08], .compressedArchive), (Array("BZh".utf8), .compressedArchive),
    ([0xfd, 0x37, 0x7a, 0x58, 0x5a], .compressedArchive), ([0x28, 0xb5, 0x2f, 0xfd], .compressedArchive),
    ([0x37, 0x7a, 0xbc, 0xaf, 0x27, 0x1c], .compressedArchive), ([0x89, 0x48, 0x44, 0x46], .hdf5),
    ([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59], .numpyArray), ([0, 5, 0x16, 7], .appleDouble),
  ]

  private static func isWebPage(_ bytes: [UInt8]) -> Bool {
    let mark: [UInt8] = [0xef, 0xbb, 0xbf]
    let text = bytes.dropFirst(bytes.starts(with: mark) ? 3 : 0).drop { [0x20, 0x09, 0x0a, 0x0d].contains($0) }
    let beginning = String(decoding: text.prefix(16), as: UTF8.self).lowercased()
    return ["<!doctype", "<html", "<head", "<body", "<?xml", "<!--", "<error"].contains { beginning.hasPrefix($0) }
  }
}

extension FileKind: CustomStringConvertible {
  /// What the file is and what to do, to follow "it is".
  public var description: String {
    switch self {
    case .empty: "empty; download it again"
    case .gitLFSPointer:
      "a Git LFS pointer, the file itself was not downloaded; run `git lfs pull` there, or `hf download`"
    case .webPage: "an HTML or XML page, such as a server's error or login page; download it again"
    case .text(let beginning): "text that begins with \"\(beginning)\"; download it again"
    case .zeros: "filled with zeros, an unfinished download; download it again"
    case .gguf: "a GGUF file; give it a name that ends in .gguf, in the folder of its component"
    case .zipArchive:
      "a zip archive, as PyTorch saves .bin, .pt and .ckpt files; pickles are not read, convert it to safetensors"
    case .pickle:
      "a Python pickle, as PyTorch saved .bin, .pt and .ckpt files; pickles are not read, convert it to safetensors"
    case .compressedArchive: "a compressed archive; unpack it"
    case .hdf5: "an HDF5 file, as Keras writes them; take the model in the diffusers layout"
    case .numpyArray: "a NumPy array; take the model in the diffusers layout"
    case .appleDouble: "a macOS file with another file's attributes; copy the file itself"
    }
  }
}
