import Foundation
import Testing
import Weights

/// Files that are something else than their names say.
@Suite struct FileKindTests {
  private static let kinds: [(beginning: [UInt8], kind: FileKind)] = [
    ([], .empty), (Array("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n".utf8), .gitLFSPointer),
    (Array("<!doctype html>".utf8), .webPage), (Array(" \r\n\t<HTML lang=en>".utf8), .webPage),
    ([0xef, 0xbb, 0xbf] + Array("<?xml version=\"1.0\"?><Error/>".utf8), .webPage),
    (Array("GGUF".utf8) + [3, 0, 0, 0], .gguf), (Array("tjgg".utf8), .gguf),
    (Array("PK\u{3}\u{4}".utf8) + [20, 0], .zipArchive),
    ([0x80, 2, 0x63], .pickle), ([0x80, 4, 0x95], .pickle), ([0x1f, 0x8b, 8, 0], .compressedArchive),
    ([0x28, 0xb5, 0x2f, 0xfd, 0], .compressedArchive), ([0x89, 0x48, 0x44, 0x46, 0x0d], .hdf5),
    ([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1], .numpyArray), ([0, 5, 0x16, 7, 0], .appleDouble),
    ([UInt8](repeating: 0, count: 4096), .zeros),
  ]

  @Test(arguments: kinds.indices, [true, false]) func recognises(index: Int, isTextExpected: Bool) {
    let (beginning, kind) = Self.kinds[index]
    #expect(FileKind(beginning: beginning, isTextExpected: isTextExpected) == kind)
  }

  @Test func textIsForeignOnlyWhereDataAreExpected() {
    for text in ["Entry not found", "{\"error\":\n\"Repository not found\"}", "i n\nt h\n"] {
      #expect(FileKind(beginning: text.utf8, isTextExpected: true) == nil)
      #expect(FileKind(beginning: text.utf8, isTextExpected: false) == .text(text.replacing("\n", with: " ")))
    }
    let long = FileKind(beginning: String(repeating: "a", count: 5000).utf8, isTextExpected: false)
    #expect(long == .text(String(repeating: "a", count: 60)))
  }

  /// A header length may look like the beginning of another format.
  @Test(arguments: [0x0280, 0x0580, 0x0403_4b50, 0x5d, 0x2020_2020 & 0x03ff_ffff, 2, 100_000_000] as [UInt64])
  func headersOfAnyLengthAreSafetensors(length: UInt64) {
    let header = safetensors("{\"a\": 1", length: length)
    #expect(FileKind(beginning: header, isTextExpected: false) == nil)
  }

  @Test(arguments: kinds.indices) func filesAreRefusedByKind(index: Int) throws {
    let (bytes, kind) = Self.kinds[index]
    let directory = try TemporaryDirectory(), url = try directory.write(bytes, as: "model.safetensors")
    let expected = WeightsError.foreignFile(file: url.path, expected: "a safetensors file", kind: kind)
    #expect(weightsError { _ = try SafetensorsFile(url) } == expected)
    #expect(expected.description.contains("model.safetensors is not a safetensors file: it is "))
  }

  @Test func linksToNothingAreNamed() throws {
    let directory = try TemporaryDirectory(), link = directory.url.appending(path: "model.safetensors")
    try FileManager.default.createSymbolicLink(atPath: link.path, withDestinationPath: "../blobs/00ff")
    let error = weightsError { _ = try ComponentWeights(directory: directory.url, baseName: "model") }
    #expect(
      error?.description.hasPrefix(
        "cannot read \(link.path): it is a symbolic link to ../blobs/00ff, which does not exist") == true)
  }
}
