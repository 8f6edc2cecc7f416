import Foundation

/// One name, one type: two modules that give two types one name make every reader ask which is meant.
enum TypeNames {
  private static let declaration = NSRegularExpression.known(
    #"^(?:@\w+(?:\([^)\n]*\))?[ \n]+)*(?:(?:public|package|internal|open|final|indirect|nonisolated) )*"#
      + #"(?:struct|class|enum|actor|protocol|typealias) (\w+)"#,
    .anchorsMatchLines)

  /// The types that a file declares at its top level and shows to other files.
  static func types(in file: SourceFile) -> [String] {
    declaration.matches(in: CodeText.code(of: file)).compactMap { $0[1].map(String.init) }
  }

  /// Types of one name in two modules of `files`, unless `allowed` has the name.
  static func duplicates(in files: [SourceFile], allowed: [String: String]) -> [Finding] {
    var places: [String: [String: String]] = [:]
    for file in files where file.kind == "swift" {
      for type in types(in: file) { places[type, default: [:]][file.folder] = file.path }
    }
    return places.filter { $0.value.count > 1 && allowed[$0.key] == nil }.sorted { $0.key < $1.key }.map {
      name, folders in
      let paths = folders.values.sorted()
      return Finding(path: paths[0], "\(name) is also declared in \(paths.dropFirst().joined(separator: ", "))")
    }
  }
}
