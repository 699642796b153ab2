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
      ThroughputBench.self, BacklogBench.self, SpaceBench.self, QueuesBench.self,
      WaitingBench.self, FairBench.self, WireBench.self, PeersBench.self, BacklogStep.self,
      QueuesStep.self,
    ],
    defaultSubcommand: ThroughputBench.self)
}

/// `penstock bench throughput`: what the disk does, and how much of that the engine reaches.
struct ThroughputBench: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "throughput",
    abstract: "Measure durable throughput and latency beside the device's own limit.",
    discussion: """
      Every rate is of acknowledged, synced operations in this process. The device's limit is \
      measured in the same run: append one aligned block to a zero-filled file and sync it, one \
      at a time.
      """)

  @Option(name: .long, help: "Directory to work in; a new one inside it is used and removed.")
  var directory = "."

  @Option(name: .long, help: "Bytes in a message body.")
  var body = 1024

  @Option(name: .long, help: "Seconds per workload.")
  var seconds = 3.0

  @Option(name: .long, help: "Workload to run: send, cycle or all.")
  var workload = Workload.Selection.all

  @Option(name: .long, parsing: .upToNextOption, help: "Numbers of concurrent producers.")
  var producers = [1, 64]

  @Option(name: .long, parsing: .upToNextOption, help: "Messages per request.")
  var batch = [1, 64]

  func validate() throws {
    guard body >= 1, body <= 1 << 20 else {
      throw ValidationError("--body must be from 1 to 1048576 bytes.")
    }
    guard seconds >= 0.1, seconds <= 600 else {
      throw ValidationError("--seconds must be from 0.1 to 600.")
    }
    guard producers.allSatisfy({ (1...10_000).contains($0) }) else {
      throw ValidationError("--producers must be from 1 to 10000.")
    }
    guard batch.allSatisfy({ (1...1000).contains($0) && $0 * body <= 8 << 20 }) else {
      throw ValidationError("--batch must be from 1 to 1000, and a batch at most 8 MiB.")
    }
  }

  func run() async throws {
    let files = PosixFileSystem()
    let root = "\(directory)/penstock-bench-\(SystemRandom().next())"
    try files.createDirectory(root)
    defer { removeTree(root) }

    print("machine     \(Machine.description)")
    print("directory   \(root)")
    print("durability  synced, every acknowledgement; body \(body) bytes, \(seconds) s each")
    print("")
    print(
      pad("workload", 30) + lead("producers", 10) + lead("batch", 7) + lead("messages/s", 12)
        + lead("p50 us", 9) + lead("p99 us", 9) + lead("device/s", 10) + lead("p50 us", 9)
        + lead("of device", 11))
    for kind in Workload.Kind.allCases where workload.includes(kind) {
      for count in producers {
        for size in batch {
          // The device's speed drifts: it is measured before and after each workload.
          let block = roundUp(size * body, to: 4096)
          let before = try DeviceProbe.measure(root, files, block: block, seconds: seconds / 3)
          let path = "\(root)/\(kind.rawValue)-\(count)-\(size)"
          let measured = try await Workload(
            kind: kind, producers: count, batch: size, body: body, seconds: seconds
          ).run(in: path)
          removeTree(path)
          let after = try DeviceProbe.measure(root, files, block: block, seconds: seconds / 3)
          let device = before.joined(after)
          print(row(kind.title, count, size, measured, device))
        }
      }
    }
    print("")
    print(
      """
      "device/s" are commits: one writer appends the same message bytes, in whole blocks of
      4096, to a zero-filled file and syncs, one at a time, just before and after each workload.
      "of device" is messages/s over what that moves. Latency is per request; a cycle is the
      send, the receive and the delete of its messages.
      """)
  }

  private func row(
    _ name: String, _ producers: Int, _ batch: Int, _ measured: Measurement,
    _ device: Measurement
  ) -> String {
    let ratio = measured.rate / (device.rate * Double(batch))
    return pad(name, 30) + lead(String(producers), 10) + lead(String(batch), 7)
      + lead(whole(measured.rate), 12) + lead(whole(measured.percentile(0.50)), 9)
      + lead(whole(measured.percentile(0.99)), 9) + lead(whole(device.rate), 10)
      + lead(whole(device.percentile(0.50)), 9)
      + lead("\(Double(Int((ratio * 100).rounded())) / 100)", 11)
  }
}

func whole(_ value: Double) -> String { String(Int(value.rounded())) }

func pad(_ text: String, _ width: Int) -> String {
  text + String(repeating: " ", count: max(0, width - text.count))
}

func lead(_ text: String, _ width: Int) -> String {
  String(repeating: " ", count: max(0, width - text.count)) + text
}

func removeTree(_ path: String) {
  do { try FileManager.default.removeItem(atPath: path) } catch {
    print("could not remove \(path): \(error.localizedDescription)")
  }
}

/// Operations over a time, and how long each took.
struct Measurement {
  /// Messages.
  var count = 0
  /// Nanoseconds from the first operation to the last.
  var elapsed: UInt64 = 1
  /// Of each request, in nanoseconds; sorted by `finish`.
  var latencies: [UInt64] = []

  var rate: Double { Double(count) * 1e9 / Double(max(elapsed, 1)) }

  mutating func finish() { latencies.sort() }

  /// Both measurements as one.
  func joined(_ other: Measurement) -> Measurement {
    var joined = Measurement(
      count: count + other.count, elapsed: elapsed + other.elapsed,
      latencies: latencies + other.latencies)
    joined.finish()
    return joined
  }

  /// Microseconds; the latencies must be sorted.
  func percentile(_ fraction: Double) -> Double {
    guard !latencies.isEmpty else { return 0 }
    let place = min(latencies.count - 1, Int(Double(latencies.count) * fraction))
    return Double(latencies[place]) / 1000
  }
}
