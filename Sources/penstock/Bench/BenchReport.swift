// SPDX-License-Identifier: Apache-2.0
import Foundation
import Penstock

/// What a run of the workloads found, as it is written with `--json`.
struct BenchReport: Encodable {
  /// Of this layout.
  var format = 1
  var command: String
  var machine = Machine.description
  /// That the device's limits and the workloads were measured on; nil when all was elsewhere.
  var fileSystem: Machine.FileSystem?
  /// Of this engine; of another server, what that is configured to.
  var durability: String
  /// Requests in a second; nothing for a closed loop.
  var rate: Double?
  var seconds: Double
  var warmUp: Double
  /// The device alone, at the beginning of the run.
  var device: [DeviceRow] = []
  var rows: [Row] = []

  /// Microseconds.
  struct Latency: Encodable {
    var p50, p90, p99, p999, p9999, max, mean: Double

    init(_ measurement: Measurement) {
      p50 = measurement.percentile(0.5)
      p90 = measurement.percentile(0.9)
      p99 = measurement.percentile(0.99)
      p999 = measurement.percentile(0.999)
      p9999 = measurement.percentile(0.9999)
      max = Double(measurement.latencies.longest) / 1000
      mean = measurement.latencies.mean / 1000
    }
  }

  /// So many writers, each of which writes a block and syncs it, again and again.
  struct DeviceRow: Encodable {
    var writers: Int
    var block: Int
    var commitsPerSecond: Double
    var latency: Latency

    init(_ writers: Int, _ block: Int, _ measured: Measurement) {
      (self.writers, self.block) = (writers, block)
      commitsPerSecond = measured.rate
      latency = Latency(measured)
    }
  }

  struct Row: Encodable {
    var workload: String
    var name: String
    /// Whose API it went over; nil for the engine in this process.
    var server: String?
    var producers: Int
    var consumers: Int
    var batch: Int
    var body: Int
    var messages: Int
    var messagesPerSecond: Double
    var mebibytesPerSecond: Double
    /// Over HTTP: several of each cycle; nil where others' are measured.
    var requestsPerSecond: Double?
    /// `request`, or `delivery` from the begin of the send to the receipt.
    var latencyOf: String
    var latency: Latency
    var perSecond: [Int]
    /// Of the store, for all parts of the workload together; nil of one behind an API.
    var recordsPerCommit: Double?
    var syncsPerSecond: Double?
    /// Messages that waited at the end of the time.
    var left: Int
    /// Requests that were due and never made.
    var unserved: Int
    /// The device alone, just before and after.
    var device: DeviceRow?
    /// Messages in a second, over what that moves.
    var ofDevice: Double?

    init(
      _ workload: Workload, _ part: Workload.Outcome.Part, _ outcome: Workload.Outcome,
      _ device: DeviceRow?
    ) {
      let measured = part.measurement
      self.workload = workload.kind.rawValue
      name = part.name
      producers = workload.kind.produces ? workload.producers : 0
      consumers = workload.kind.hasConsumers || !workload.kind.produces ? workload.consumers : 0
      (batch, body) = (workload.batch, workload.body)
      messages = measured.count
      messagesPerSecond = measured.rate
      mebibytesPerSecond = measured.rate * Double(workload.body) / 1_048_576
      latencyOf = part.latency
      latency = Latency(measured)
      perSecond = measured.perSecond
      recordsPerCommit = outcome.recordsPerCommit
      syncsPerSecond = outcome.syncsPerSecond
      (left, unserved) = (outcome.left, measured.unserved)
      self.device = device
      // A schedule is no limit that the device sets; and in a short time it may not do one commit.
      ofDevice = device.flatMap {
        part.isBound && workload.rate == nil && $0.commitsPerSecond > 0
          ? measured.rate / ($0.commitsPerSecond * Double(workload.batch)) : nil
      }
    }

    /// Of a line of the plot.
    var title: String {
      let lanes = [producers, consumers].filter { $0 > 0 }.map(String.init).joined(separator: "+")
      return "\(server.map { $0 + ", " } ?? "")\(name), \(lanes) × \(batch)"
    }

    static let header =
      pad("workload", 30) + lead("senders", 8) + lead("takers", 7) + lead("batch", 6)
      + lead("messages/s", 11) + lead("p50 us", 9) + lead("p90 us", 9) + lead("p99 us", 9)
      + lead("p99.9 us", 9) + lead("max us", 9) + lead("rec/commit", 11) + lead("syncs/s", 8)
      + lead("left", 9) + lead("device/s", 10) + lead("of device", 10)

    var line: String {
      pad(name, 30) + lead(producers == 0 ? "" : "\(producers)", 8)
        + lead(consumers == 0 ? "" : "\(consumers)", 7) + lead("\(batch)", 6)
        + lead(whole(messagesPerSecond), 11) + lead(whole(latency.p50), 9)
        + lead(whole(latency.p90), 9) + lead(whole(latency.p99), 9) + lead(whole(latency.p999), 9)
        + lead(whole(latency.max), 9) + lead(recordsPerCommit.map(tenths) ?? "", 11)
        + lead(syncsPerSecond.map(whole) ?? "", 8) + lead(left == 0 ? "" : "\(left)", 9)
        + lead(device.map { whole($0.commitsPerSecond) } ?? "", 10)
        + lead(ofDevice.map(hundredths) ?? "", 10)
        + (unserved == 0 ? "" : "  \(unserved) due requests were not made")
    }
  }

  /// Says what was measured, and how.
  func printHead(_ durability: String) {
    print("machine      \(machine)")
    if let fileSystem { print("file system  \(fileSystem)") }
    print("durability   \(durability)")
    print(
      "load         \(seconds) s each after \(warmUp) s, "
        + (rate.map { "\(whole($0)) requests/s are due" } ?? "closed loop"))
    print("")
  }

  /// Measures the device alone, for commits of several sizes and for many writers.
  mutating func measure(_ probe: DeviceProbe, isSynced: Bool = true) throws {
    print(
      pad("the device alone", 30) + lead("commits/s", 11) + lead("MiB/s", 9) + lead("p50 us", 9)
        + lead("p99 us", 9) + lead("max us", 9))
    for (writers, block) in [(1, 4 << 10), (1, 64 << 10), (1, 1 << 20), (64, 4 << 10)] {
      let measured = try probe.measure(
        block: block, seconds: min(1, seconds / 3), writers: writers, isSynced: isSynced)
      device.append(.init(writers, block, measured))
      print(
        pad("\(writers) × \(sizeText(block))", 30) + lead(whole(measured.rate), 11)
          + lead(whole(measured.rate * Double(block) / 1_048_576), 9)
          + lead(whole(measured.percentile(0.5)), 9) + lead(whole(measured.percentile(0.99)), 9)
          + lead(whole(measured.percentile(1)), 9))
    }
  }

  /// Of the columns that compare with the device.
  static func deviceExplanation(isSynced: Bool = true) -> String {
    let commit = isSynced ? "append and sync" : "append, without syncs as the store itself,"
    return """
      "device/s" are commits of the device alone just before and after: as many threads as there
      are senders, 64 at most, \(commit) the bytes of one request, in whole blocks of 4096,
      each in its part of one zero-filled file. "of device" is messages/s over what that moves.
      """
  }

  func write(to path: String) throws {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
    try (encoder.encode(self) + Data("\n".utf8)).write(to: URL(fileURLWithPath: path))
  }
}

extension Plot {
  /// The distributions of latencies over the throughput, a line for each measurement.
  static func distributions(
    _ title: String, _ named: [(name: String, measurement: Measurement)]
  ) -> String {
    let shares = [50, 90, 99, 99.9, 99.99]
    let ticks = shares.map { (at: -log10(1 - $0 / 100), label: String(format: "%g", $0)) }
    // From the median on, in equal steps of the axis.
    let steps = stride(from: ticks[0].at, through: ticks[4].at + 1e-9, by: (4 - ticks[0].at) / 60)
    let latencies = named.enumerated().map { place, part in
      Line(
        name: part.name, color: color(place),
        points: steps.map {
          ($0, max(1, part.measurement.percentile(1 - pow(10, -$0))))
        })
    }
    let rates = named.enumerated().map { place, part in
      Line(
        name: part.name, color: color(place),
        points: part.measurement.perSecond.enumerated().map {
          (Double($0.offset) + 1, Double($0.element))
        })
    }
    return figure([
      Plot(
        title: title + "; senders + takers × batch", x: "percentile of latencies", y: "us",
        hasLogarithmicY: true, ticks: ticks,
        lines: latencies),
      Plot(
        title: "", x: "seconds", y: "messages in each second", lines: rates),
    ])
  }
}
