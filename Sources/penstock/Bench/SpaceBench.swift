// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Foundation
import Penstock
import PenstockSystem

/// `penstock bench space`: a day's traffic again and again, of which a little stays for ever.
struct SpaceBench: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "space",
    abstract: "Measure disk use against what lives, over rounds of traffic that leave some behind.",
    discussion: """
      Each round sends messages to a queue and one in a hundred to another one that nobody \
      receives from, then empties the first. The largest disk use of each round is printed beside \
      the bound: twice the bytes that live, and four segments.
      """)

  @Option(name: .long, help: "Directory to work in; a new one inside it is used and removed.")
  var directory = "."

  @Option(name: .long, help: "Messages in a round.")
  var messages = 1_000_000

  @Option(name: .long, help: "Rounds.")
  var rounds = 50

  @Option(name: .long, help: "Bytes in a message body.")
  var body = 100

  @Option(name: .long, help: "Size of a segment in bytes.")
  var segmentSize = 32 << 20

  func validate() throws {
    guard (1000...100_000_000).contains(messages), (1...10_000).contains(rounds),
      (1...65_536).contains(body)
    else { throw ValidationError("--messages, --rounds or --body is out of range.") }
  }

  func run() async throws {
    let root = "\(directory)/penstock-bench-\(SystemRandom().next())"
    try PosixFileSystem().createDirectory(root)
    defer { removeTree(root) }
    var options = StoreOptions()
    options.segmentSize = segmentSize
    let store = try await Store.open(at: root + "/store", options: options)
    let busy = try await store.queue("busy")
    let kept = try await store.queue("kept")
    let entry = SendEntry(MessageContent(body: [UInt8](repeating: 97, count: body)))
    let entries = [SendEntry](repeating: entry, count: 500)
    print("machine     \(Machine.description)")
    print("")
    print(
      lead("round", 6) + lead("live MiB", 10) + lead("disk MiB", 10) + lead("bound MiB", 11)
        + lead("share", 7))
    let size = roundUp(40 + body, to: 8)
    var worst = 0.0
    for round in 1...rounds {
      var peak = 0.0
      var here = (live: 0, disk: 0, bound: 0)
      func look() async throws {
        let live =
          try await (busy.describe().counts.total + kept.describe().counts.total) * size
        let disk = BacklogStep.bytes(in: root + "/store")
        let bound = 2 * live + 4 * segmentSize
        if Double(disk) / Double(bound) > peak {
          peak = Double(disk) / Double(bound)
          here = (live, disk, bound)
        }
      }
      var sent = 0
      while sent < messages {
        for result in try await busy.send(batch: entries) { _ = try result.get() }
        for result in try await kept.send(batch: Array(entries.prefix(5))) {
          _ = try result.get()
        }
        sent += 500
        if sent % 25_000 == 0 { try await look() }
      }
      var received = 0
      while true {
        let leases = try await busy.receive(maximum: 500, visibilityTimeout: .seconds(3600))
        guard !leases.isEmpty else { break }
        for result in try await busy.delete(leases.map(\.message.handle)) { try result.get() }
        received += leases.count
        if received % 25_000 == 0 { try await look() }
      }
      try await look()
      worst = max(worst, peak)
      func mebibytes(_ bytes: Int) -> String { whole(Double(bytes) / 1_048_576) }
      print(
        lead("\(round)", 6) + lead(mebibytes(here.live), 10) + lead(mebibytes(here.disk), 10)
          + lead(mebibytes(here.bound), 11)
          + lead("\(Double(Int(peak * 100)) / 100)", 7))
    }
    print("")
    print("The largest share of the bound was \(Double(Int(worst * 100)) / 100).")
    try await store.close()
  }
}
