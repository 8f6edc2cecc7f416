import ArgumentParser
import Foundation
import ImageCodec
import MCP
import Settings

/// `qwen-image mcp`: a gateway's images for programs that speak the Model Context Protocol.
struct MCPCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "mcp", abstract: "Serve a gateway's images to assistants, by the Model Context Protocol.",
    discussion: """
      Speaks on standard input and output, to the program that has started it; with --http to programs of this \
      machine. Tools: generate_image, edit_image, get_job, list_jobs, cancel_job, list_models. Images to edit are \
      named by the job that has made them, or are files below the directories that --allow-directory names.
      """)

  @OptionGroup var gateway: GatewayOptions

  @Option(
    help: """
      Serve Streamable HTTP at http://HOST:PORT/mcp instead. A host that other machines reach needs a token in \
      QWEN_IMAGE_MCP_TOKEN, which clients send as "Authorization: Bearer TOKEN".
      """)
  var http: String?

  @Option(
    help: ArgumentHelp("A directory below which images may be read. Repeat it for several.", valueName: "directory"),
    completion: .directory)
  var allowDirectory: [String] = []

  @Option(help: "A directory in which every image is saved, named after its job.", completion: .directory)
  var outputDirectory: String?

  @Option(help: "What images are when a call does not say.")
  var imageFormat = ImageFileFormat.png

  @Option(
    help: """
      Images of one result are sent in it up to so many bytes together; others are named by their file or address. \
      Clients refuse results of more than about 1 MB.
      """)
  var maxInlineBytes = 700_000

  static let inlineLimit = 0...(32 << 20)

  func validate() throws {
    guard Self.inlineLimit.contains(maxInlineBytes) else {
      throw ValidationError(
        "--max-inline-bytes is \(maxInlineBytes); it must be from 0 to \(Self.inlineLimit.upperBound)")
    }
    _ = try address()
  }

  func run() async throws {
    let roots = try allowDirectory.map { try AllowedDirectory($0) }
    let files = try outputDirectory.map { try ToolOutputDirectory($0) }
    let address = try address()
    try await gateway.withClient { client in
      let images = ToolImages(client: client, maxInlineBytes: maxInlineBytes, directory: files)
      let tools = ImageTools(
        client: client, reader: ToolImageReader(client: client, roots: roots), images: images,
        standardFormat: imageFormat.name)
      let server = MCPServer(
        name: "qwen-image", title: "Qwen-Image", version: SoftwareVersion.current,
        instructions: ImageTools.instructions, provider: tools)
      if let address {
        try await MCPHTTPServer(server: server, address: address).run()
      } else {
        await MCPStandardStreams.run(server)
      }
    }
  }

  private func address() throws -> MCPAddress? {
    guard let http else { return nil }
    let token = ProcessInfo.processInfo.environment[MCPAddress.tokenVariable] ?? ""
    return try MCPAddress(http, token: token.isEmpty ? nil : token)
  }
}
