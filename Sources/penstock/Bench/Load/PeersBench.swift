// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Foundation
import PenstockSystem

/// `penstock bench peers`: the same work, durable, by other queues beside this one.
struct PeersBench: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "peers",
    abstract: "Measure other queues beside this one, in turns.",
    discussion: """
      Measures what writes and syncs alone reach, the engine in this process, a server over HTTP, \
      SQLite where its library is installed, and the servers that --peer names, which \
      Benchmarks/compare starts. Rounds go round the systems, so that all see the same machine; \
      what is told is the median of the rounds.
      """)

  @Option(name: .long, help: "Directory to work in; a new one inside it is used and removed.")
  var directory = "."

  @Option(name: .long, help: "Bytes in a message body.")
  var body = 1024

  @Option(name: .long, help: "Seconds per workload, system and round.")
  var seconds = 2.0

  @Option(name: .long, help: "Seconds before them that are not measured.")
  var warmUp = 0.5

  @Option(name: .long, help: "Rounds.")
  var rounds = 3

  @Option(
    name: .long,
    help: "A server: KIND=HOST:PORT, of \(WirePeer.kinds.joined(separator: ", ")). Repeatable.")
  var peer: [String] = []

  @Option(name: .long, parsing: .upToNextOption, help: "Systems to measure; all by default.")
  var only: [String] = []

  @Option(
    name: .long, parsing: .upToNextOption,
    help: "Workloads: \(PeerWork.all.map(\.name).joined(separator: ", ")); all by default.")
  var work: [String] = PeerWork.all.map(\.name)

  @Option(
    name: .long,
    help: "Make so many requests of each workload, without a warm-up, once: to count syncs by.")
  var count: Int?

  @Option(
    name: .long,
    help: "Syncs per request that were counted: SYSTEM=TEXT, for the table. Repeatable.")
  var syncs: [String] = []

  @Option(name: .long, help: "File to write a line of JSON to for each run.")
  var json: String?

  @Option(name: .long, help: "File to write a plot to, SVG.")
  var plot: String?

  func validate() throws {
    guard (1...60_000).contains(body), (0.1...600).contains(seconds), (0...600).contains(warmUp),
      (1...100).contains(rounds), (1...1_000_000).contains(count ?? 1)
    else {
      throw ValidationError(
        """
        --body may be up to 60000, --seconds 0.1 to 600, --warm-up to 600, --rounds to 100, \
        --count to 1000000.
        """)
    }
    for name in work where !PeerWork.all.contains(where: { $0.name == name }) {
      throw ValidationError("--work has no \(name).")
    }
    _ = try peers()
  }

  private func peers() throws -> [WirePeer] {
    try peer.map { text in
      let parts = text.split(separator: "=", maxSplits: 1)
      guard parts.count == 2, let address = LoadAddress(parts[1]),
        let peer = WirePeer(kind: String(parts[0]), at: address, body: body)
      else { throw ValidationError("--peer is KIND=HOST:PORT, not \(text).") }
      return peer
    }
  }

  func run() async throws {
    let root = "\(directory)/penstock-peers-\(SystemRandom().next())"
    try PosixFileSystem().createDirectory(root)
    defer { removeTree(root) }
    func wanted(_ name: String) -> Bool { only.isEmpty || only.contains(name) }

    var servers = try peers().filter { wanted($0.name) }
    var server: BenchServer?
    defer { server?.stop() }
    if wanted("penstock-http"), !servers.contains(where: { $0.name == "penstock-http" }) {
      let started = try BenchServer(root + "/served")
      server = started
      let address = LoadAddress(host: "127.0.0.1", port: started.port)
      if let peer = WirePeer(kind: "penstock-http", at: address, body: body) {
        servers.insert(peer, at: 0)
      }
    }
    var systems: [any PeerSystem] = [
      RawPeer(directory: root, body: body), EmbeddedPeer(directory: root, body: body),
    ]
    if SQLitePeer.isInstalled { systems.append(SQLitePeer(directory: root, body: body)) }
    systems = systems.filter { wanted($0.name) } + servers.map { $0 as any PeerSystem }
    systems.sort { Self.place($0.name) < Self.place($1.name) }

    var report = PeersReport(
      body: body, seconds: seconds, rounds: count == nil ? rounds : 1, count: count,
      systems: systems, syncs: syncs)
    if let json { try report.open(json) }
    for work in PeerWork.all where self.work.contains(work.name) {
      try await run(work, systems, &report)
    }
    report.finish()
    print(report.text)
    if let plot { try report.plot.write(toFile: plot, atomically: true, encoding: .utf8) }
  }

  private static func place(_ name: String) -> Int {
    ["raw", "penstock", "penstock-http", "sqlite"].firstIndex(of: name) ?? 4
  }

  private func run(
    _ work: PeerWork, _ systems: [any PeerSystem], _ report: inout PeersReport
  ) async throws {
    let plan = LoadPlan(
      seconds: count == nil ? seconds : 600, warmUp: count == nil ? warmUp : 0, rounds: count)
    for round in 0..<(count == nil ? rounds : 1) {
      // Each is first once in a while.
      for turn in systems.indices {
        let system = systems[(turn + round) % systems.count]
        guard !report.hasFailed(system, work) else { continue }
        let kind = work.cycles ? "cycle" : "send"
        let queue = "bench_\(kind)_\(work.producers)x\(work.batch)_\(round)"
        do {
          guard let result = try await system.run(work, queue: queue, plan) else { continue }
          try result.check()
          try report.add(result, of: system, work, round)
        } catch {
          // One that cannot do it is no reason to end.
          report.fail(system, work, "\(error)")
        }
      }
    }
  }
}
