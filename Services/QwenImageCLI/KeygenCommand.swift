import ArgumentParser
import Foundation
import Transport

/// `qwen-image keygen`: the CURVE keys that a cluster's links are encrypted and authenticated with.
struct KeygenCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "keygen",
    abstract: "Make the key pairs of a gateway and its workers.",
    discussion: """
      Writes DIRECTORY/gateway/gateway.secret, DIRECTORY/gateway/workers/NAME.public (the gateway's allow-list),
      DIRECTORY/worker/gateway.public and DIRECTORY/worker/NAME.secret. A worker's machine needs DIRECTORY/worker only.
      Existing keys are kept: run it again with another --worker to admit one more worker, delete a file of the
      allow-list to revoke its key.
      """)

  @Argument(help: "Where the keys go.")
  var directory: String

  @Option(help: "Name of a worker key; may be given several times.")
  var worker = ["worker"]

  func validate() throws {
    for name in worker where name.isEmpty || name.hasPrefix(".") || name.contains(where: { $0 == "/" || $0.isNewline })
    {
      throw ValidationError("--worker: \"\(name)\" cannot be part of a file name")
    }
  }

  func run() throws {
    let root = URL(filePath: directory)
    let (gateway, workers) = (root.appending(path: "gateway"), root.appending(path: "worker"))
    let allowList = gateway.appending(path: "workers")
    for folder in [allowList, workers] { try OutputDirectory.make(folder.path(percentEncoded: false)) }
    let gatewayKeys = try keyPair(at: gateway.appending(path: "gateway.secret"))
    try write(gatewayKeys.publicKey, to: workers.appending(path: "gateway.public"))
    for name in worker {
      let keys = try keyPair(at: workers.appending(path: "\(name).secret"))
      try write(keys.publicKey, to: allowList.appending(path: "\(name).public"))
    }
  }

  /// Writes `key` unless the file holds it already.
  private func write(_ key: CurvePublicKey, to file: URL) throws {
    let path = file.path(percentEncoded: false)
    if FileManager.default.fileExists(atPath: path) {
      guard try CurvePublicKey(contentsOf: path) == key else {
        throw ValidationError("\(path) is not the public key of the secret key that is there; remove one of them")
      }
    } else {
      try key.write(to: path)
    }
  }

  /// The key pair in `file`, made first if there is none.
  private func keyPair(at file: URL) throws -> CurveKeyPair {
    let path = file.path(percentEncoded: false)
    if FileManager.default.fileExists(atPath: path) { return try CurveKeyPair(contentsOf: path) }
    let keys = try CurveKeyPair.generate()
    try keys.write(to: path)
    try Terminal.print("made \(path)")
    return keys
  }
}
