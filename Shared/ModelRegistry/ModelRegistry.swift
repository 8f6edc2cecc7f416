import Diffusion
import Foundation
import QwenImage
import QwenImage21

extension ModelFamilies {
  /// The families that this release reads. One line each.
  public static let standard = ModelFamilies([
    QwenImageFamily.self, QwenImage21Family.self,
  ])
}

extension ModelDirectory {
  /// Reads a checkpoint of any family of this release.
  ///
  /// - Throws: `ConfigurationError`, naming the file and field at fault.
  public init(_ url: URL) throws(ConfigurationError) { try self.init(url, families: .standard) }
}
