// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Foundation
import Penstock
import PenstockSystem

/// `penstock bench wire`: the SQS API over HTTP, beside other servers.
struct WireBench: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "wire",
    abstract: "Measure the server over HTTP, beside what others do in the same run.",
    discussion: """
      Starts a server of its own in another process; each connection sends its next request when \
      the last one is answered, or, with --rate, when it is due. Rounds go round the servers, so \
      that all see the same machine. Each run has a queue of its own, which is removed after it.

      What was sent and received is counted by identifiers and compared, bodies are compared, and \
      so is what the server says is left: where a message is lost, changed, doubled or, in a \
      group, out of order, no figure is told and the command fails. The device's limits are \
      measured in the same run: as many threads as there are senders append the bytes of a request \
      to a file and sync it.
      """)

  @Option(name: .long, help: "Directory to work in; a new one inside it is used and removed.")
  var directory = "."

  @Option(name: .long, help: "Bytes in a message body, but for large bodies.")
  var body = 1024

  @Option(name: .long, help: "Bytes in a large body.")
  var largeBody = 256 << 10

  @Option(name: .long, help: "Seconds per workload, server and round.")
  var seconds = 3.0

  @Option(name: .long, help: "Seconds before them that are not measured.")
  var warmUp = 0.5

  @Option(name: .long, help: "Rounds; the best of them is told, with --rate all of them.")
  var rounds = 2

  @Option(name: .long, help: "Connections; where others receive, those that send.")
  var connections = 64

  @Option(
    name: .long,
    help: """
      Connections that receive, of receive, drain, mixed, fan-in and groups; by default as many as \
      --connections, and one of a fan-in.
      """)
  var consumers: Int?

  @Option(name: .long, parsing: .upToNextOption, help: "Workloads.")
  var work: [WireWork] = WireWork.allCases

  @Option(
    name: .long, help: "Messages per request, but for page, send, cycle, empty and large: 1 there.")
  var batch = 10

  @Option(
    name: .long,
    help: """
      Requests, or cycles, due per second and server by a fixed schedule; latency counts from when \
      they were due. By default a connection sends the next when the last is answered. Where \
      messages wait before, and for who receives what others send, there is no schedule.
      """)
  var rate: Double?

  @Option(name: .long, help: "Groups of the FIFO queue.")
  var groups = 100

  @Option(name: .long, help: "Messages that wait before receive and drain.")
  var messages = 10_000

  @Option(
    name: .long,
    help: "Another server of the SQS API: NAME=http://HOST:PORT, without signatures. Repeatable.")
  var peer: [String] = []

  @Option(
    name: .long,
    help: "A server of a page of the same size: NAME=http://HOST:PORT/PATH. Repeatable.")
  var page: [String] = []

  @Option(
    name: .long, parsing: .upToNextOption,
    help: "Servers to measure, by name; all by default. Without penstock none is started.")
  var only: [String] = []

  @Option(name: .long, help: "Write everything that was measured to this file, as JSON.")
  var json: String?

  @Option(name: .long, help: "Draw latencies and throughput to this SVG file.")
  var plot: String?

  /// The server that is started.
  private static let own = "penstock"

  func validate() throws {
    guard (1...1 << 20).contains(body), (0.1...600).contains(seconds), (1...100).contains(rounds),
      (1...10_000).contains(connections), (0...600).contains(warmUp), (1...10).contains(batch)
    else {
      throw ValidationError(
        """
        --body may be up to 1048576, --seconds 0.1 to 600, --warm-up to 600, --rounds to 100, \
        --connections to 10000, --batch to 10.
        """)
    }
    guard (1...1 << 20).contains(largeBody), (1...10_000).contains(consumers ?? 1),
      (1...1_000_000).contains(groups), (1...10_000_000).contains(messages)
    else {
      throw ValidationError(
        """
        --large-body may be up to 1048576, --consumers to 10000, --groups to 1000000, --messages \
        to 10000000.
        """)
    }
    if let stamped = work.first(where: \.kind.isStamped), body < WireCheck.stampSize {
      throw ValidationError(
        "--body must be at least \(WireCheck.stampSize) bytes for \(stamped.rawValue).")
    }
    if work.contains(.groups), connections > groups {
      throw ValidationError("--groups must be at least --connections: each has its own.")
    }
    guard rate.map({ (0.1...10_000_000).contains($0) }) ?? true else {
      throw ValidationError("--rate may be from 0.1 to 10000000.")
    }
    guard peer.allSatisfy({ WireTarget($0, isPage: false) != nil }),
      page.allSatisfy({ WireTarget($0, isPage: true) != nil })
    else { throw ValidationError("--peer and --page are NAME=http://HOST:PORT.") }
    let names = [Self.own] + others.map(\.name)
    guard Set(names).count == names.count else {
      throw ValidationError("--peer and --page: each server needs a name of its own.")
    }
    if let unknown = only.first(where: { !names.contains($0) }) {
      throw ValidationError("--only: there is no server \(unknown).")
    }
  }

  private var others: [WireTarget] {
    peer.compactMap { WireTarget($0, isPage: false) }
      + page.compactMap { WireTarget($0, isPage: true) }
  }

  func run() async throws {
    func isWanted(_ name: String) -> Bool { only.isEmpty || only.contains(name) }
    var targets = others.filter { isWanted($0.name) }
    let root = "\(directory)/penstock-wire-\(SystemRandom().next())"
    try PosixFileSystem().createDirectory(root)
    defer { removeTree(root) }
    let server = isWanted(Self.own) ? try BenchServer(root + "/data") : nil
    defer { server?.stop() }
    if let server {
      targets.insert(
        WireTarget(Self.own, LoadAddress(host: "127.0.0.1", port: server.port)), at: 0)
    }
    var report = BenchReport(
      command: (["penstock"] + CommandLine.arguments.dropFirst()).joined(separator: " "),
      fileSystem: server.map { _ in Machine.fileSystem(of: root) },
      durability: server == nil ? "as configured" : "synced", rate: rate, seconds: seconds,
      warmUp: warmUp)
    report.printHead(
      server == nil
        ? "as the servers are configured"
        : "synced, every acknowledgement of penstock; others as they are configured")
    let probe = try server.map { _ in try DeviceProbe(root) }
    if let probe {
      try report.measure(probe)
      print("")
    }
    print(header)
    var measured: [(name: String, measurement: Measurement)] = []
    var wrong = 0
    for work in work { wrong += try await run(work, targets, probe, &report, &measured) }
    try probe?.close()
    if !report.rows.isEmpty {
      print("")
      print(explanation)
      if probe != nil { print(BenchReport.deviceExplanation()) }
    }
    if let json { try report.write(to: json) }
    if let plot {
      let title = "over HTTP, bodies of \(sizeText(body))"
      try Data(Plot.distributions(title, measured).utf8).write(to: URL(fileURLWithPath: plot))
    }
    if wrong > 0 { throw BenchFailure("\(wrong) runs were wrong, as told above.") }
    if report.rows.isEmpty { throw LoadError("no server did any of it.") }
  }

  private func load(_ work: WireWork) -> Workload {
    let takers = work == .fanIn ? 1 : connections
    return Workload(
      kind: work.kind, producers: connections,
      consumers: work == .page || work == .empty ? connections : consumers ?? takers,
      batch: work.isBatched ? batch : 1, body: work == .large ? largeBody : body, seconds: seconds,
      warmUp: warmUp, rate: rate, groups: groups, messages: messages, durability: .synced)
  }

  /// - Returns: how many servers did it wrong.
  private func run(
    _ work: WireWork, _ all: [WireTarget], _ probe: DeviceProbe?, _ report: inout BenchReport,
    _ measured: inout [(name: String, measurement: Measurement)]
  ) async throws -> Int {
    let targets = all.filter { ($0.page != nil) == (work == .page) }
    guard !targets.isEmpty else { return 0 }
    let load = load(work)
    let (done, limit): (Rounds, BenchReport.DeviceRow?)
    if let probe {
      (done, limit) = try await probe.beside(load) { try rounds(work, load, targets) }
    } else {
      (done, limit) = (try rounds(work, load, targets), nil)
    }
    ProgressLine.end()
    for target in targets {
      guard let outcome = done.best[target.name] else { continue }
      for part in outcome.parts {
        // What others acknowledge may not be on this device, nor on any.
        var row = BenchReport.Row(load, part, outcome, target.name == Self.own ? limit : nil)
        (row.workload, row.server) = (work.rawValue, target.name)
        if part.latency == "request" {
          row.requestsPerSecond = part.measurement.requestRate * Double(work.requests)
        }
        print(line(row))
        report.rows.append(row)
        if part.measurement.latencies.count > 0 { measured.append((row.title, part.measurement)) }
      }
    }
    // Each row is there as soon as it is measured, also in a file.
    fflush(nil)
    return done.wrong
  }

  /// What the rounds of a workload came to, by server.
  private struct Rounds {
    var best: [String: Workload.Outcome] = [:]
    var failed: Set<String> = []
    var wrong = 0
  }

  /// Runs a workload on each server in turns.
  private func rounds(
    _ work: WireWork, _ load: Workload, _ targets: [WireTarget]
  ) throws -> Rounds {
    var done = Rounds()
    for round in 0..<rounds {
      for target in targets where !done.failed.contains(target.name) {
        ProgressLine.tell("\(work.rawValue), \(target.name): \(round + 1) of \(rounds) …")
        do {
          let outcome = try WireRun.measure(work, load, on: target)
          let best = done.best[target.name]
          done.best[target.name] = best?.with(outcome, isPaced: rate != nil) ?? outcome
        } catch  where error is BenchFailure || (error is LoadError && target.name != Self.own) {
          // What is wrong counts nowhere; a peer that cannot do it is no reason to fail.
          if error is BenchFailure { done.wrong += 1 }
          done.failed.insert(target.name)
          done.best[target.name] = nil
          ProgressLine.end()
          print(pad(work.rawValue, 18) + "\(target.name): \(error)")
        }
      }
    }
    return done
  }

  private var header: String {
    pad("workload", 18) + pad("server", 12) + lead("senders", 8) + lead("takers", 7)
      + lead("batch", 6) + lead("requests/s", 11) + lead("messages/s", 11) + lead("p50 us", 9)
      + lead("p99 us", 9) + lead("p99.9 us", 10) + lead("max us", 9) + lead("left", 9)
      + lead("device/s", 10) + lead("of device", 10)
  }

  private func line(_ row: BenchReport.Row) -> String {
    pad(row.name, 18) + pad(row.server ?? "", 12)
      + lead(row.producers == 0 ? "" : "\(row.producers)", 8)
      + lead(row.consumers == 0 ? "" : "\(row.consumers)", 7) + lead("\(row.batch)", 6)
      + lead(row.requestsPerSecond.map(whole) ?? "", 11)
      + lead(row.messages == 0 ? "" : whole(row.messagesPerSecond), 11)
      + lead(whole(row.latency.p50), 9) + lead(whole(row.latency.p99), 9)
      + lead(whole(row.latency.p999), 10) + lead(whole(row.latency.max), 9)
      + lead(row.left == 0 ? "" : "\(row.left)", 9)
      + lead(row.device.map { whole($0.commitsPerSecond) } ?? "", 10)
      + lead(row.ofDevice.map(hundredths) ?? "", 10)
  }

  private var explanation: String {
    """
    Latency is of a round: a request, or all of a cycle or of a drain's two; of "receives" from the
    begin of the send to the receipt\(rate == nil ? "" : ", where begin is when it was due"). \
    "left" waited at the end of the time.
    """
  }
}

extension Workload.Outcome {
  /// One of another round too: the faster of both or, of those that a schedule paced, both.
  fileprivate func with(_ other: Workload.Outcome, isPaced: Bool) -> Workload.Outcome {
    guard isPaced else {
      return other.parts[0].measurement.requestRate > parts[0].measurement.requestRate
        ? other : self
    }
    var both = self
    for place in parts.indices {
      both.parts[place].measurement = parts[place].measurement.joined(
        other.parts[place].measurement)
    }
    both.left = other.left
    return both
  }
}

extension WireWork: ExpressibleByArgument {}

/// This executable's own server, in a process of its own.
final class BenchServer {
  let port: Int
  private let process = Process()
  var processIdentifier: Int32 { process.processIdentifier }

  /// Starts it over a new store.
  init(_ path: String) throws {
    process.executableURL = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
    process.arguments = ["serve", "--data-dir", path, "--port", "0"]
    let output = Pipe()
    process.standardOutput = output
    try process.run()
    var text = ""
    while !text.contains("listening on") {
      let more = output.fileHandleForReading.availableData
      guard !more.isEmpty else { break }
      text += String(decoding: more, as: UTF8.self)
    }
    guard let start = text.range(of: "listening on http://127.0.0.1:")?.upperBound,
      let port = Int(text[start...].prefix { $0.isNumber })
    else {
      process.terminate()
      throw ValidationError("the server did not start.")
    }
    self.port = port
  }

  func stop() {
    process.terminate()
    process.waitUntilExit()
  }
}
