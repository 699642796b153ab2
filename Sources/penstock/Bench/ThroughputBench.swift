// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Foundation
import Penstock
import PenstockSystem

/// `penstock bench`: what the engine does on this machine's disk.
struct Bench: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Measure the engine on this machine.",
    subcommands: [
      ThroughputBench.self, MicroBench.self, ScaleBench.self, BacklogBench.self, MemoryBench.self,
      SpaceBench.self, WaitingBench.self, FairBench.self, WireBench.self, PeersBench.self,
      BacklogStep.self, MemoryStep.self,
    ],
    defaultSubcommand: ThroughputBench.self)
}

/// `Durability` on the command line.
enum BenchDurability: String, ExpressibleByArgument, CaseIterable {
  case synced, written

  var value: Durability { self == .synced ? .synced : .written }
}

/// `penstock bench throughput`: what the disk does, and how much of that the engine reaches.
struct ThroughputBench: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "throughput",
    abstract: "Measure throughput and latency beside the device's own limits.",
    discussion: """
      Every rate is of acknowledged operations in this process, and every run is of one \
      durability. The device's limits are measured in the same run: append a block to a \
      zero-filled file and sync it; for several senders as many threads do that, each in a part of \
      the file. What a workload sent and received is counted and compared, also after the store \
      was closed and opened again: the command fails if a message is lost, changed, doubled or, in \
      a group, out of order.
      """)

  @Option(name: .long, help: "Directory to work in; a new one inside it is used and removed.")
  var directory = "."

  @Option(
    name: .long, parsing: .upToNextOption,
    help: "Workloads, separated by blanks: all, or some of them.")
  var workload = [Workload.Selection.all]

  @Option(name: .long, parsing: .upToNextOption, help: "Numbers of concurrent producers.")
  var producers = [1, 64]

  @Option(
    name: .long,
    help: "Concurrent consumers; by default as many as producers, and one of a fan-in.")
  var consumers: Int?

  @Option(name: .long, parsing: .upToNextOption, help: "Messages per request.")
  var batch = [1, 64]

  @Option(name: .long, help: "Bytes in a message body, but for large bodies.")
  var body = 1024

  @Option(name: .long, help: "Seconds per workload.")
  var seconds = 3.0

  @Option(name: .long, help: "Seconds before those that do not count.")
  var warmUp = 0.5

  @Option(
    name: .long,
    help: """
      Requests per second of all producers together that are due whatever is answered; latencies \
      count from then. Without it each producer makes its next request after the last one's answer.
      """)
  var rate: Double?

  @Option(name: .long, help: "Groups of the FIFO queue.")
  var groups = 100

  @Option(name: .long, help: "Messages that wait before receive and drain.")
  var messages = 100_000

  @Option(name: .long, help: "synced survives power loss, written survives the process.")
  var durability = BenchDurability.synced

  @Option(name: .long, help: "Write everything that was measured to this file, as JSON.")
  var json: String?

  @Option(name: .long, help: "Draw latencies and throughput to this SVG file.")
  var plot: String?

  /// Of the workload of large bodies.
  private static let largeBodies = [256 << 10, 1 << 20]

  private var kinds: [Workload.Kind] {
    let chosen = workload.flatMap(\.kinds)
    return Workload.Kind.allCases.filter { chosen.contains($0) }
  }

  func validate() throws {
    guard body >= 1, body <= 1 << 20 else {
      throw ValidationError("--body must be from 1 to 1048576 bytes.")
    }
    if let stamped = kinds.first(where: \.isStamped), body < Workload.stampSize {
      throw ValidationError(
        "--body must be at least \(Workload.stampSize) bytes for \(stamped.rawValue).")
    }
    guard seconds >= 0.1, seconds <= 3600 else {
      throw ValidationError("--seconds must be from 0.1 to 3600.")
    }
    guard warmUp >= 0, warmUp <= 600 else {
      throw ValidationError("--warm-up must be from 0 to 600.")
    }
    guard producers.allSatisfy({ (1...10_000).contains($0) }) else {
      throw ValidationError("--producers must be from 1 to 10000.")
    }
    guard (1...10_000).contains(consumers ?? 1) else {
      throw ValidationError("--consumers must be from 1 to 10000.")
    }
    guard batch.allSatisfy({ (1...1000).contains($0) && $0 * body <= 8 << 20 }) else {
      throw ValidationError("--batch must be from 1 to 1000, and a batch at most 8 MiB.")
    }
    guard rate.map({ $0 >= 1 && $0 <= 10_000_000 }) ?? true else {
      throw ValidationError("--rate must be from 1 to 10000000.")
    }
    guard (1...1_000_000).contains(groups) else {
      throw ValidationError("--groups must be from 1 to 1000000.")
    }
    if kinds.contains(.groups), let most = producers.max(), most > groups {
      throw ValidationError("--groups must be at least --producers: each has its own.")
    }
    guard (1000...100_000_000).contains(messages) else {
      throw ValidationError("--messages must be from 1000 to 100000000.")
    }
  }

  func run() async throws {
    let root = "\(directory)/penstock-bench-\(SystemRandom().next())"
    try PosixFileSystem().createDirectory(root)
    defer { removeTree(root) }
    var report = BenchReport(
      command: (["penstock"] + CommandLine.arguments.dropFirst()).joined(separator: " "),
      fileSystem: Machine.fileSystem(of: root), durability: durability.rawValue, rate: rate,
      seconds: seconds, warmUp: warmUp)
    let meaning = durability == .synced ? "power loss" : "the process, not power loss"
    report.printHead("\(durability.rawValue): what is acknowledged survives \(meaning)")
    let probe = try DeviceProbe(root)
    try report.measure(probe, isSynced: durability == .synced)
    print("")
    print(BenchReport.Row.header)
    var measured: [(name: String, measurement: Measurement)] = []
    let all = workloads
    for (place, workload) in all.enumerated() {
      ProgressLine.tell("\(place + 1) of \(all.count): \(workload.kind.title) …")
      try await run(workload, "\(root)/\(place)", probe, &report, &measured)
    }
    try probe.close()
    print("")
    print(explanation)
    if let json { try report.write(to: json) }
    if let plot {
      let title = "\(durability.rawValue), bodies of \(sizeText(body))"
      try Data(Plot.distributions(title, measured).utf8).write(to: URL(fileURLWithPath: plot))
    }
  }

  private var workloads: [Workload] {
    kinds.flatMap { kind in
      (kind == .large ? Self.largeBodies : [body]).flatMap { body in
        producers.flatMap { count in
          (kind == .large ? [1] : batch).map { size in
            Workload(
              kind: kind, producers: count,
              consumers: consumers ?? (kind == .fanIn || kind == .fanInQueues ? 1 : count),
              batch: size, body: body, seconds: seconds, warmUp: warmUp, rate: rate,
              groups: groups, messages: messages, durability: durability.value)
          }
        }
      }
    }
  }

  private func run(
    _ workload: Workload, _ path: String, _ probe: DeviceProbe, _ report: inout BenchReport,
    _ measured: inout [(name: String, measurement: Measurement)]
  ) async throws {
    let (outcome, limit) = try await probe.beside(workload, isSynced: durability == .synced) {
      defer { removeTree(path) }
      return try await WorkloadRun.measure(workload, in: path)
    }
    ProgressLine.end()
    for part in outcome.parts {
      let row = BenchReport.Row(workload, part, outcome, limit)
      print(row.line)
      report.rows.append(row)
      guard part.measurement.count > 0 else { continue }
      measured.append((row.title, part.measurement))
    }
    // Each row is there as soon as it is measured, also in a file.
    fflush(nil)
  }

  private var explanation: String {
    """
    Latency is of a request: a send, a receive, or all three of a cycle; of "receives" from the
    begin of the send to the receipt\(rate == nil ? "" : ", where begin is when it was due").
    "rec/commit" and "syncs/s" are counted by the store, for all parts of a workload; a send, a
    lease and a delete of a message are a record each. "left" waited at the end of the time.
    \(BenchReport.deviceExplanation(isSynced: durability == .synced))
    """
  }
}
