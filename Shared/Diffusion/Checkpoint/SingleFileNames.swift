/// The names of a transformer's tensors in files of other programs, which hold whole pipelines.
package enum SingleFileNames {
  private static let prefixes = ["model.diffusion_model.", "diffusion_model."]

  /// The name without what ComfyUI puts before it.
  package static func withoutPrefix(_ stored: String) -> String {
    prefixes.first { stored.hasPrefix($0) }.map { String(stored.dropFirst($0.count)) } ?? stored
  }
}
