#if ADDRESS_SANITIZER
  import Foundation
  import TensorCore
  import Testing

  /// What tensors mark for AddressSanitizer: checked by its own answers where these tests run under it
  /// (`Tests/sanitize.sh address KernelsTests`).
  @Suite(.serialized) struct AddressSanitizerTests {
    /// Whether an access to an address would be reported; nil: this process is not under AddressSanitizer.
    private static let isPoisoned: (@Sendable (UInt) -> Bool)? = {
      typealias Question = @Sendable @convention(c) (UInt) -> Int32
      guard let address = dlsym(dlopen(nil, RTLD_NOW), "__asan_address_is_poisoned") else { return nil }
      let question = unsafeBitCast(address, to: Question.self)
      return { question($0) != 0 }
    }()

    /// The addresses in `range` that may be accessed.
    private static func permitted(_ range: Range<UInt>) throws -> [UInt] {
      let isPoisoned = try #require(isPoisoned)
      return range.filter { !isPoisoned($0) }
    }

    private static func address(of tensor: Tensor) -> UInt {
      tensor.withBytes { $0.withUnsafeBytes { UInt(bitPattern: $0.baseAddress) } }
    }

    /// Of malloc alone, of the recycler, of huge pages: [bytes of the tensor, bytes of its block].
    static let sizes = [[100, 128], [4001, 4032], [130_001, 131_072], [1_050_000, 2 << 20]]

    @Test(arguments: sizes)
    func whatIsBehindATensorMustNotBeTouched(size: [Int]) throws {
      // The second time large blocks come from the recycler.
      for _ in 0..<2 {
        let tensor = MutableTensor(uninitialized: [size[0]], .uint8).finish()
        let start = Self.address(of: tensor), end = start + UInt(size[0])
        #expect(try Self.permitted(start..<start + UInt(size[1])) == Array(start..<end))
        withExtendedLifetime(tensor) {}
      }
    }

    @Test
    func aBlockThatWaitsMustNotBeTouched() throws {
      let recycler = BlockRecycler(idleBytesMax: 10_000), block = try #require(malloc(4096))
      let start = UInt(bitPattern: block), range = start..<start + 4096
      recycler.give(block, byteCount: 4096)
      #expect(try Self.permitted(range).isEmpty)
      #expect(recycler.take(byteCount: 4096) == block)
      #expect(try Self.permitted(range) == Array(range))
      free(block)
    }

    #if os(Linux) || os(macOS)
      /// The compiler's checks ask for the marks.
      @Test
      func anAccessBehindATensorEndsTheProcess() async {
        let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
          let tensor = MutableTensor(uninitialized: [130_001], .uint8).finish()
          tensor.withBytes { bytes in
            bytes.withUnsafeBytes { print($0.baseAddress!.load(fromByteOffset: 130_001, as: UInt8.self)) }
          }
        }
        let report = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
        #expect(report.contains("AddressSanitizer: use-after-poison"), "\(report)")
      }
    #endif
  }
#endif
