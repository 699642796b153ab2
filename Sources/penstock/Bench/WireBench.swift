// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Foundation
import PenstockSystem

/// `penstock bench wire`: the SQS API over HTTP, beside other servers.
struct WireBench: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "wire",
    abstract: "Measure the server over HTTP, beside what others do in the same run.",
    discussion: """
      Starts a server of its own in another process; each connection sends its next request when \
      the last one is answered, or, with --rate, when it is due. Rounds go round the servers, so \
      that all see the same machine.
      """)

  @Option(name: .long, help: "Directory to work in; a new one inside it is used and removed.")
  var directory = "."

  @Option(name: .long, help: "Bytes in a message body.")
  var body = 1024

  @Option(name: .long, help: "Seconds per workload, server and round.")
  var seconds = 3.0

  @Option(name: .long, help: "Seconds before them that are not measured.")
  var warmUp = 0.5

  @Option(name: .long, help: "Rounds; the best of them is told.")
  var rounds = 2

  @Option(name: .long, help: "Connections.")
  var connections = 64

  @Option(
    name: .long, parsing: .upToNextOption,
    help: "Workloads: page, send, batch, cycle, cycles, empty; all by default.")
  var work: [WireWork] = WireWork.allCases

  @Option(name: .long, help: "Messages per request of batch and cycles.")
  var batch = 10

  @Option(
    name: .long,
    help: """
      Requests, or cycles, due per second and server by a fixed schedule; latency counts from when \
      they were due. By default a connection sends the next when the last is answered.
      """)
  var rate: Double?

  @Option(name: .long, help: "Another server of the SQS API: NAME=http://HOST:PORT. Repeatable.")
  var peer: [String] = []

  @Option(
    name: .long,
    help: "A server of a page of the same size: NAME=http://HOST:PORT/PATH. Repeatable.")
  var page: [String] = []

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
    guard rate.map({ (0.1...10_000_000).contains($0) }) ?? true else {
      throw ValidationError("--rate may be from 0.1 to 10000000.")
    }
    guard peer.allSatisfy({ WireTarget($0, isPage: false) != nil }),
      page.allSatisfy({ WireTarget($0, isPage: true) != nil })
    else { throw ValidationError("--peer and --page are NAME=http://HOST:PORT.") }
  }

  func run() async throws {
    let root = "\(directory)/penstock-wire-\(SystemRandom().next())"
    try PosixFileSystem().createDirectory(root)
    defer { removeTree(root) }
    let server = try BenchServer(root + "/data")
    defer { server.stop() }
    let targets =
      [WireTarget("penstock", LoadAddress(host: "127.0.0.1", port: server.port))]
      + peer.compactMap { WireTarget($0, isPage: false) }
      + page.compactMap { WireTarget($0, isPage: true) }

    print("machine      \(Machine.description)")
    print("durability   synced, every acknowledgement of penstock; body \(body) bytes")
    print(
      "connections  \(connections)\(rate.map { ", \(whole($0)) requests due per second" } ?? ""); "
        + "\(seconds) s each after \(warmUp) s, best of \(rounds) rounds")
    print("")
    print(
      pad("workload", 10) + pad("server", 12) + lead("requests/s", 12) + lead("messages/s", 12)
        + lead("p50 us", 10) + lead("p99 us", 10) + lead("p99.9 us", 10))
    for work in work { try run(work, targets) }
  }

  private func run(_ work: WireWork, _ all: [WireTarget]) throws {
    let targets = all.filter { ($0.page != nil) == (work == .page) }
    var best: [Int: Measurement] = [:]
    var failed: Set<String> = []
    let plan = LoadPlan(seconds: seconds, warmUp: warmUp, rate: rate)
    for round in 0..<rounds {
      for (place, target) in targets.enumerated() where !failed.contains(target.name) {
        do {
          let queue = work == .page ? "" : try target.makeQueue("\(work.rawValue)-\(round)")
          let clients = (0..<connections).map { _ in
            HTTPLoad(work, target, queue: queue, body: body, batch: batch)
          }
          let measured = try LoadLoop.run(clients, to: target.address, plan)
          try measured.check()
          if rate != nil {
            // The rate is given: what tells rounds apart is in the latencies of them all.
            let elapsed = (best[place]?.elapsed ?? 0) + measured.elapsed
            best[place, default: Measurement()].add(measured)
            best[place]?.elapsed = elapsed
          } else if measured.requestRate > best[place]?.requestRate ?? 0 {
            best[place] = measured
          }
        } catch  where place > 0 {
          // A peer that cannot do it is no reason to end.
          failed.insert(target.name)
          print(pad(work.rawValue, 10) + "\(target.name): \(error)")
        }
      }
    }
    for (place, target) in targets.enumerated() {
      guard let measured = best[place] else { continue }
      print(
        pad(work.rawValue, 10) + pad(target.name, 12)
          + lead(whole(measured.requestRate * Double(work.requests)), 12)
          + lead(work == .page || work == .empty ? "" : whole(measured.rate), 12)
          + [0.50, 0.99, 0.999].map { share in
            lead(whole(Double(measured.latencies.percentile(share)) / 1000), 10)
          }.joined())
    }
    // Each row is there as soon as it is measured, also in a file.
    fflush(nil)
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
