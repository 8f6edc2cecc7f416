/// The release that this code belongs to.
public enum SoftwareVersion {
  /// By semantic versioning.
  public static let current = "0.2.0"
}
