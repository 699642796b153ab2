// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Foundation
import NIOCore
import NIOPosix
import PenstockSystem

/// `penstock bench wire`: the SQS API over HTTP, beside other servers.
struct WireBench: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "wire",
    abstract: "Measure the server over HTTP, beside what others do in the same run.",
    discussion: """
      Starts a server of its own in another process; each connection sends its next request when \
      the last one is answered. Rounds go round the servers, so that all see the same machine.
      """)

  @Option(name: .long, help: "Directory to work in; a new one inside it is used and removed.")
  var directory = "."

  @Option(name: .long, help: "Bytes in a message body.")
  var body = 1024

  @Option(name: .long, help: "Seconds per workload, server and round.")
  var seconds = 3.0

  @Option(name: .long, help: "Rounds; the best of them is told.")
  var rounds = 2

  @Option(name: .long, help: "Connections.")
  var connections = 64

  @Option(name: .long, help: "Another server of the SQS API: NAME=http://HOST:PORT. Repeatable.")
  var peer: [String] = []

  @Option(
    name: .long,
    help: "A server of a page of the same size: NAME=http://HOST:PORT/PATH. Repeatable.")
  var page: [String] = []

  func validate() throws {
    guard (1...1 << 20).contains(body), (0.1...600).contains(seconds), (1...100).contains(rounds),
      (1...10_000).contains(connections)
    else {
      throw ValidationError(
        "--body may be up to 1048576, --seconds 0.1 to 600, --rounds 100, --connections 10000.")
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
      [WireTarget("penstock", "127.0.0.1", server.port)]
      + peer.compactMap { WireTarget($0, isPage: false) }
      + page.compactMap { WireTarget($0, isPage: true) }
    let loops = MultiThreadedEventLoopGroup(numberOfThreads: 1)

    print("machine      \(Machine.description)")
    print("durability   synced, every acknowledgement of penstock; body \(body) bytes")
    print("connections  \(connections); \(seconds) s each, best of \(rounds) rounds")
    print("")
    print(
      pad("workload", 10) + pad("server", 12) + lead("requests/s", 12) + lead("messages/s", 12)
        + lead("p50 us", 10) + lead("p99 us", 10))
    do {
      for work in WireWork.allCases { try await run(work, targets, loops) }
    } catch {
      try await loops.shutdownGracefully()
      throw error
    }
    try await loops.shutdownGracefully()
  }

  private func run(
    _ work: WireWork, _ all: [WireTarget], _ loops: MultiThreadedEventLoopGroup
  ) async throws {
    let targets = all.filter { ($0.page != nil) == (work == .page) }
    var best: [Measurement?] = targets.map { _ in nil }
    var failed: Set<String> = []
    for round in 0..<rounds {
      for (place, target) in targets.enumerated() where !failed.contains(target.name) {
        do {
          let queue = try await Self.makeQueue("\(work.rawValue)-\(round)", target, loops)
          let measured = try await WireLoad.measure(
            work, of: target, queue: queue, body: body, connections: connections,
            seconds: seconds, on: loops)
          if measured.rate > best[place]?.rate ?? 0 { best[place] = measured }
        } catch  where place > 0 {
          // A peer that cannot do it is no reason to end.
          failed.insert(target.name)
          print(pad(work.rawValue, 10) + "\(error)")
        }
      }
    }
    for (target, measured) in zip(targets, best) {
      guard let measured else { continue }
      // A cycle is three requests.
      let requests = measured.rate / Double(work.count) * (work == .cycle ? 3 : 1)
      print(
        pad(work.rawValue, 10) + pad(target.name, 12) + lead(whole(requests), 12)
          + lead(work == .page || work == .empty ? "" : whole(measured.rate), 12)
          + lead(whole(measured.percentile(0.50)), 10)
          + lead(whole(measured.percentile(0.99)), 10))
    }
    // Each row is there as soon as it is measured, also in a file.
    fflush(nil)
  }

  private static func makeQueue(
    _ name: String, _ target: WireTarget, _ loops: MultiThreadedEventLoopGroup
  ) async throws -> String {
    guard target.page == nil else { return "" }
    let answer = try await WireLoad.ask(
      "CreateQueue", #"{"QueueName":"\#(name)"}"#, of: target, loops)
    let parts = answer.split(separator: "\"")
    guard let place = parts.firstIndex(of: "QueueUrl"), place + 2 < parts.count else {
      throw ValidationError("\(target.name) answered CreateQueue with \(answer)")
    }
    return String(parts[place + 2])
  }
}

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
