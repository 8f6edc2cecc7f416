import ArgumentParser
import Foundation
import Settings

/// `qwen-image`: draws images in one process or through a cluster, and prepares what a cluster needs.
struct QwenImageCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "qwen-image",
    abstract: "Draw images with Qwen-Image, in one process or through a cluster.",
    version: SoftwareVersion.current,
    subcommands: [
      LocalCommand.self, GenerateCommand.self, EditCommand.self, InpaintCommand.self, OutpaintCommand.self,
      ControlCommand.self, LayersCommand.self, BatchCommand.self, TemplateCommand.self, JobsCommand.self,
      ModelsCommand.self, WorkersCommand.self, BenchCommand.self, MCPCommand.self, KeygenCommand.self,
      APIKeyCommand.self, JournalCommand.self, SynthCommand.self, QuantizeCommand.self, AccuracyCommand.self,
      TuneCommand.self, InspectCommand.self,
    ])
}

/// The program. It differs from the argument parser's own in what it prints of errors: their text may come from a
/// gateway or a file.
@main
enum Program {
  static func main() async {
    do {
      try requirePrompts(CommandLine.arguments.dropFirst())
      var command = try QwenImageCommand.parseAsRoot()
      if var asynchronous = command as? any AsyncParsableCommand {
        try await asynchronous.run()
      } else {
        try command.run()
      }
    } catch {
      exit(report(plain(error)))
    }
  }

  /// Refuses a prompt that is an option's name: the parser takes any text as a prompt, also one that begins with a
  /// dash.
  private static func requirePrompts(_ arguments: ArraySlice<String>) throws(ValidationError) {
    for (option, value) in zip(arguments, arguments.dropFirst()) where prompts.contains(option) {
      guard value.wholeMatch(of: /-[a-z]|--[a-z]+(-[a-z]+)*(=.*)?/) != nil else { continue }
      let name = option == "-p" ? "--prompt" : option
      throw ValidationError("\(option) lacks a value before \(value); if that is the text, write \(name)=\(value)")
    }
  }

  private static let prompts: Set = ["--prompt", "-p", "--negative-prompt"]

  /// What an error of Foundation's means: a file, and what the system says of it. Other errors as they are.
  private static func plain(_ error: any Error) -> any Error {
    let outer = error as NSError
    guard outer.domain == NSCocoaErrorDomain, let path = outer.userInfo[NSFilePathErrorKey] as? String,
      let cause = outer.userInfo[NSUnderlyingErrorKey] as? any Error, (cause as NSError).domain == NSPOSIXErrorDomain
    else { return error }
    return OutputError(name: path, reason: String(cString: strerror(Int32((cause as NSError).code))))
  }

  /// Prints what the parser says of `error`; returns the exit status.
  private static func report(_ error: any Error) -> Int32 {
    let status = QwenImageCommand.exitCode(for: error)
    let message = QwenImageCommand.fullMessage(for: error)
    switch status {
    case _ where message.isEmpty: break
    case .success: print(message)
    // Usage has several lines, and all else in it is the user's own.
    case .validationFailure: Terminal.note(message, keepingNewlines: true)
    default: Terminal.note(message)
    }
    return status.rawValue
  }
}
