// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import PenstockSystem
import PenstockTools

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// What every tool takes.
struct ToolArguments: ParsableArguments {
  @Argument(help: "Directory of the store.")
  var directory: String

  @Flag(help: "Print JSON.")
  var json = false

  init() {}

  init(directory: String, json: Bool) {
    self.directory = directory
    self.json = json
  }

  func validate() throws {
    guard !directory.isEmpty else { throw ValidationError("Name the directory of the store.") }
  }

  var context: ToolContext {
    let bar = ProgressBar()
    return ToolContext(
      directory: directory, fileSystem: PosixFileSystem(), clock: RealClock(),
      progress: { bar.show($0) })
  }

  /// Runs a tool. Ends with status 2 when it could not do its work, and 1 when what it needs is
  /// damaged, each with one error on standard error.
  func run(_ body: (ToolContext) throws -> Void) throws {
    do {
      try body(context)
    } catch let error as ToolError {
      ProgressBar.clear()
      ProgressBar.write("Error: \(error.description)\n")
      if json {
        print(error.json.line)
      }
      throw ExitCode(error.kind == .damaged ? 1 : 2)
    }
    ProgressBar.clear()
  }

  func show(_ text: String, _ value: JSON) {
    ProgressBar.clear()
    print(json ? value.line : text)
  }
}

/// A line on standard error that is overwritten; nothing where that is no terminal.
final class ProgressBar {
  private var shown = ContinuousClock.now - .seconds(1)
  private static var isTerminal: Bool { isatty(STDERR_FILENO) == 1 }

  func show(_ progress: ToolProgress) {
    // Often enough to be watched, seldom enough to cost nothing.
    let now = ContinuousClock.now
    guard Self.isTerminal, now - shown > .milliseconds(100) else { return }
    shown = now
    let percent = progress.total == 0 ? 100 : progress.done * 100 / progress.total
    let filled = Int(percent / 4)
    let bar = String(repeating: "#", count: filled) + String(repeating: ".", count: 25 - filled)
    let total =
      progress.unit == .bytes
      ? "\(progress.total >> 20) MiB" : "\(progress.total) segments"
    Self.write("\r\u{1b}[K\(progress.task) [\(bar)] \(percent)% of \(total)")
  }

  static func clear() { if isTerminal { write("\r\u{1b}[K") } }

  static func write(_ text: String) {
    let bytes = Array(text.utf8)
    _ = bytes.withUnsafeBytes { systemWrite(STDERR_FILENO, $0.baseAddress, $0.count) }
  }
}

private func systemWrite(_ file: CInt, _ bytes: UnsafeRawPointer?, _ count: Int) -> Int {
  write(file, bytes, count)
}
