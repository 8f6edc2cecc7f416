import Foundation
import GatewayPipelines
import Logging
import Settings

/// What image files say about their origin, and who signs it.
public struct ProvenanceSettings: SettingGroup {
  /// Whether files have IPTC's DigitalSourceType.
  public var namesSourceType = true
  /// The certificates of the signer; empty: files are not signed.
  public var certificateFile = ""
  /// The private key of the first certificate.
  public var privateKeyFile = ""

  /// The defaults.
  public init() {}

  /// Reads every setting; the files are read by ``checked()``.
  public mutating func read(_ reader: inout SettingReader) async {
    namesSourceType = await reader.flag(
      "provenance.digitalSourceType", namesSourceType,
      "write into every image file, as XMP, that a model made it (IPTC's DigitalSourceType)")
    certificateFile = await reader.text(
      "provenance.certificateFile", certificateFile,
      "PEM file with the certificate that image files are signed with (C2PA, with ES256) and then those of its "
        + "issuers; without one, they are not signed")
    privateKeyFile = await reader.text(
      "provenance.privateKeyFile", privateKeyFile,
      "PEM file with the private key of that certificate, which only its owner may have access to")
    for (name, file, other, otherFile) in [
      ("certificateFile", certificateFile, "privateKeyFile", privateKeyFile),
      ("privateKeyFile", privateKeyFile, "certificateFile", certificateFile),
    ] where !file.isEmpty && otherFile.isEmpty {
      reader.complain("provenance.\(name) is \"\(file)\", but without provenance.\(other) it signs nothing")
    }
  }

  /// Reads and checks the certificates and the key.
  ///
  /// - Throws: for files that cannot be read, and for certificates that validators of C2PA refuse.
  public func checked() throws(SettingError) -> ResultProvenance {
    guard !certificateFile.isEmpty else { return ResultProvenance(namesSourceType: namesSourceType) }
    do {
      return try ResultProvenance(
        namesSourceType: namesSourceType, certificateFile: certificateFile, keyFile: privateKeyFile,
        nowUnix: Int(Date().timeIntervalSince1970))
    } catch {
      throw SettingError(problems: ["provenance: \(error)"])
    }
  }
}

extension ResultProvenance {
  /// Certificates that expire within so many days are warned of.
  private static let warningDays = 30

  /// Says who signs, and how long the certificates last: signatures without a time stamp last no longer.
  func log(to logger: Logger) {
    guard let signer else { return }
    let daysLeft = (signer.expiresAtUnix - Int(Date().timeIntervalSince1970)) / 86_400
    let metadata: Logger.Metadata = ["subject": "\(signer.subject)", "daysLeft": "\(daysLeft)"]
    if daysLeft < Self.warningDays {
      logger.warning("the certificate that images are signed with expires soon", metadata: metadata)
    } else {
      logger.info("images are signed", metadata: metadata)
    }
  }
}
