import ClusterCore
import ImageCodec
import Provenance
import Wire

/// What result files say about their origin: IPTC's DigitalSourceType as XMP, and a signed C2PA manifest.
///
/// Both are added by the gateway to what the VAE decoder has made. The private key stays in one process, a setting of
/// one process decides, and decoders of an earlier version need not know of it.
public struct ResultProvenance: Sendable {
  /// Files stay as the VAE decoder has made them.
  public static let none = ResultProvenance(namesSourceType: false)

  /// Whether files have IPTC's DigitalSourceType.
  private let namesSourceType: Bool
  private let identity: SigningIdentity?

  /// Files are not signed.
  public init(namesSourceType: Bool) {
    self.namesSourceType = namesSourceType
    identity = nil
  }

  /// Files are signed.
  ///
  /// - Parameters:
  ///   - certificateFile: PEM, the signer's certificate first.
  ///   - keyFile: PEM, its private key.
  ///   - nowUnix: in seconds since 1970.
  public init(
    namesSourceType: Bool, certificateFile: String, keyFile: String, nowUnix: Int
  ) throws(SigningIdentityError) {
    self.namesSourceType = namesSourceType
    identity = try SigningIdentity(certificateFile: certificateFile, keyFile: keyFile, nowUnix: nowUnix)
  }

  /// Whether anything is added.
  public var isAdded: Bool { namesSourceType || identity != nil }

  /// Who signs, and when the certificates expire; nil: files are not signed.
  public var signer: (subject: String, expiresAtUnix: Int)? { identity.map { ($0.subject, $0.expiresAtUnix) } }

  /// What files of an image's previews say about their origin: as much as the result, but unsigned; nil: nothing.
  public func previewOrigin(of spec: ImageSpec) -> ImageOrigin? {
    namesSourceType ? ImageOrigin(spec.metadata) : nil
  }

  /// The result of an image, with its origin in each file. Without a signature, the same image gives the same bytes.
  ///
  /// - Throws: INTERNAL for a result that is no image file, FAILED_PRECONDITION when it cannot be signed.
  public func adding(to result: WireTensor, of spec: ImageSpec) throws(Status) -> WireTensor {
    let origin = ImageOrigin(spec.metadata)
    let files = result.bytes.withUnsafeBytes { bytes in
      let ranges = spec.fileCount > 1 ? PNG.files(in: bytes) : [0..<bytes.count]
      return ranges.map { Array(bytes[$0]) }
    }
    guard files.count == spec.fileCount else {
      throw Status(.internal, "the vae-decoder's image has \(files.count) files, not \(spec.fileCount)")
    }
    do throws(ProvenanceError) {
      var bytes: [UInt8] = []
      for file in files { bytes += try adding(origin, to: file) }
      return WireTensor(
        name: result.name, dtype: .uint8, shape: [bytes.count], bytes: FrameBuffer(copying: bytes))
    } catch {
      if case .malformed = error { throw Status(.internal, "the image of the vae-decoder: \(error)") }
      throw Status(.failedPrecondition, "the origin of the image cannot be written into its file: \(error)")
    }
  }

  private func adding(_ origin: ImageOrigin, to file: [UInt8]) throws(ProvenanceError) -> [UInt8] {
    let marked = namesSourceType ? try XMP.adding(origin, to: file) : file
    guard let identity else { return marked }
    return try ContentCredentials.adding(origin, signedBy: identity, to: marked)
  }
}
