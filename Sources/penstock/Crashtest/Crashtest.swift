// SPDX-License-Identifier: Apache-2.0
package import ArgumentParser
import Foundation
import PenstockSystem
import UnixSignals

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// `penstock crashtest`: puts a server through kills, power cuts, failing calls, a full disk and
/// damaged files, and says what was lost.
package struct Crashtest: AsyncParsableCommand {
  package static let configuration = CommandConfiguration(
    abstract: "Kill, starve and damage a real server, and count what it loses.",
    discussion: """
      Tests this executable's own server in a fresh directory, or any SQS endpoint that --command \
      starts. Progress goes to standard error, the report to standard output. The exit status is \
      0 if nothing was lost, 1 if something was lost, came back or was damaged, and 2 if the test \
      could not be run or was interrupted. Root is needed for the phases power and full, strace \
      for faults.
      """)

  @Option(help: "Directory to work in; a new one inside it is used.")
  package var directory = "."

  @Option(help: "Phases to run, separated by commas: kill, power, faults, full, damage.")
  package var phases = PhaseList(phases: CrashPhase.allCases)

  @Option(help: "Rounds of the kill phase.")
  package var kills = 20

  @Option(help: "Power cuts, runs with faults, and damaged copies of each of two stores.")
  package var rounds = 8

  @Option(help: "Seconds that one phase may take, without its last drain.")
  package var seconds = 300.0

  @Option(help: "Seed of all random choices, decimal or 0x and hexadecimal. Random by default.")
  package var seed: Seed?

  @Option(help: "What an acknowledgement of the tested server means: synced or written.")
  package var durability: String?

  @Option(help: "Shell command that serves SQS; {data} and {port} stand for directory and port.")
  package var command: String?

  @Option(help: "Where the command serves, as http://HOST:PORT; {port} stands for the port.")
  package var endpoint: String?

  @Flag(help: "Print the report as one JSON object.")
  package var json = false

  @Flag(help: "Keep the files also when nothing was lost.")
  package var keep = false

  package init() {}

  package func validate() throws {
    guard (1...100_000).contains(kills) else {
      throw ValidationError("--kills must be from 1 to 100000.")
    }
    guard (1...10_000).contains(rounds) else {
      throw ValidationError("--rounds must be from 1 to 10000.")
    }
    guard seconds >= 1, seconds <= 86_400 else {
      throw ValidationError("--seconds must be from 1 to 86400.")
    }
    guard (command == nil) == (endpoint == nil) else {
      throw ValidationError(
        "--command and --endpoint belong together: one starts the server, the other says where "
          + "it then answers.")
    }
    if let durability, !["synced", "written"].contains(durability) {
      throw ValidationError("--durability must be synced or written.")
    }
    if let command, let endpoint {
      guard durability == nil else {
        throw ValidationError(
          "--durability is of Penstock's own server; put what the other one needs into --command.")
      }
      guard !command.isEmpty else { throw ValidationError("--command must not be empty.") }
      let filled = endpoint.replacingOccurrences(of: "{port}", with: "1")
      guard Endpoint(filled) != nil else {
        throw ValidationError(
          "--endpoint must be http://HOST:PORT, for instance http://127.0.0.1:{port}.")
      }
    }
    var isDirectory: ObjCBool = false
    guard FileManager.default.fileExists(atPath: directory, isDirectory: &isDirectory),
      isDirectory.boolValue
    else { throw ValidationError("--directory \(directory) is not a directory; make it first.") }
    // A command in quotes would read placeholders of the directory wrongly; ours never has any.
    guard !directory.contains("{data}"), !directory.contains("{port}") else {
      throw ValidationError("--directory must not hold {data} or {port}.")
    }
  }

  package func run() async throws {
    let stop = StopFlag()
    let signals = await UnixSignalsSequence(trapping: .sigint, .sigterm, .sighup)
    let watcher = Task {
      for await _ in signals {
        FileHandle.standardError.write(Data("stopping; cleaning up\n".utf8))
        stop.set()
      }
    }
    defer { watcher.cancel() }
    // Everything below blocks, so it has a thread of its own.
    let status: Int32 = await withCheckedContinuation { continuation in
      Thread.detachNewThread {
        do {
          continuation.resume(returning: try self.perform(stop))
        } catch {
          FileHandle.standardError.write(Data("Error: \(error)\n".utf8))
          continuation.resume(returning: 2)
        }
      }
    }
    guard status == 0 else { throw ExitCode(status) }
  }

  private func perform(_ stop: StopFlag) throws -> Int32 {
    let seed = self.seed?.value ?? SystemRandom().next()
    let root = URL(fileURLWithPath: directory).standardizedFileURL
      .appendingPathComponent("penstock-crashtest-\(String(seed, radix: 16))-\(getpid())").path
    do {
      try FileManager.default.createDirectory(
        atPath: root, withIntermediateDirectories: false)
    } catch {
      throw CrashtestError(
        "cannot make \(root): \(error.localizedDescription) Choose another --directory.")
    }
    let progress = Progress(isTerminal: isatty(STDERR_FILENO) == 1)
    var settings = CrashSettings(target: target, seed: seed)
    settings.kills = kills
    settings.rounds = rounds
    settings.seconds = seconds
    var report = CrashReport(
      seed: seed, command: commandLine, version: version, machine: Machine.description,
      directory: root, device: Self.device(root), durability: durabilityText,
      started: ISO8601DateFormatter().string(from: Date()))
    progress.say("seed \(report.seed), working in \(root)", always: true)
    let run = CrashRun(settings, directory: root, stop: stop, progress: progress)
    for phase in CrashPhase.allCases where phases.phases.contains(phase) && !stop.isSet {
      report.phases.append(run.run(phase))
    }
    report.interrupted = stop.isSet
    if report.isBroken || keep {
      report.kept = root
    } else {
      do { try FileManager.default.removeItem(atPath: root) } catch {
        progress.say("could not remove \(root): \(error.localizedDescription)", always: true)
        report.kept = root
      }
    }
    try Self.write(report, asJSON: json)
    return report.exitStatus
  }

  private var target: Target {
    if let command, let endpoint { return .command(command, endpoint: endpoint) }
    let executable = Bundle.main.executablePath ?? CommandLine.arguments[0]
    return .penstock(executable: executable, durability: durability ?? "synced")
  }

  private var commandLine: String {
    switch target {
    case .penstock: "penstock serve --segment-size \(Target.segmentSize)"
    case .command(let text, let endpoint): "\(text)  (at \(endpoint))"
    }
  }

  private var version: String {
    guard case .penstock(let executable, _) = target else { return "not known" }
    let attributes = try? FileManager.default.attributesOfItem(atPath: executable)
    let date = attributes?[.modificationDate] as? Date
    let built = date.map { ISO8601DateFormatter().string(from: $0) } ?? "unknown date"
    return "unreleased, built \(built), \(attributes?[.size] as? Int ?? 0) bytes"
  }

  private var durabilityText: String {
    guard target.isPenstock else { return "whatever the command promises" }
    return durability == "written"
      ? "written: acknowledged messages survive the process, not power loss"
      : "synced: acknowledged messages survive power loss"
  }

  /// The device and file system that hold a directory.
  private static func device(_ path: String) -> String {
    guard let mount = Mount.holding(path) else { return "not known" }
    let name = mount.source.split(separator: "/").last ?? ""
    let model = FileManager.default.contents(atPath: "/sys/block/\(name)/device/model")
    let text = model.map { String(decoding: $0, as: UTF8.self) } ?? ""
    let trimmed = text.trimmingCharacters(in: .whitespacesAndNewlines)
    return "\(mount.source), \(mount.kind)" + (trimmed.isEmpty ? "" : ", \(trimmed)")
  }

  private static func write(_ report: CrashReport, asJSON: Bool) throws {
    guard asJSON else { return print(report.text) }
    print(try report.json())
  }

  /// `--phases kill,power`.
  package struct PhaseList: ExpressibleByArgument, Equatable, Sendable {
    package var phases: [CrashPhase]

    package init(phases: [CrashPhase]) { self.phases = phases }

    package init?(argument: String) {
      var phases: [CrashPhase] = []
      for name in argument.split(separator: ",", omittingEmptySubsequences: false) {
        guard let phase = CrashPhase(rawValue: String(name)) else { return nil }
        phases.append(phase)
      }
      self.init(phases: phases)
    }

    package var defaultValueDescription: String {
      phases.map(\.rawValue).joined(separator: ",")
    }
  }

  /// A number of 64 bits, decimal or after `0x` hexadecimal.
  package struct Seed: ExpressibleByArgument, Equatable, Sendable {
    package var value: UInt64

    package init?(argument: String) {
      let value =
        argument.hasPrefix("0x") ? UInt64(argument.dropFirst(2), radix: 16) : UInt64(argument)
      guard let value else { return nil }
      self.value = value
    }
  }
}
