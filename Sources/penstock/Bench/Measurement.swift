// SPDX-License-Identifier: Apache-2.0
import Foundation

/// Operations over a time, and how long each took.
struct Measurement: Sendable {
  /// Messages.
  var count = 0
  /// Nanoseconds from the first operation to the last.
  var elapsed: UInt64 = 1
  /// Of each request.
  var latencies = Histogram()
  /// Messages of each second since the start.
  var perSecond: [Int] = []
  /// Requests that were due and never made: their latencies are what they had waited by then.
  var unserved = 0

  var rate: Double { Double(count) * 1e9 / Double(max(elapsed, 1)) }
  var requestRate: Double { Double(latencies.count) * 1e9 / Double(max(elapsed, 1)) }

  /// A run that measured nothing has no rate, not even zero.
  func check() throws {
    guard latencies.count > 0 else {
      throw LoadError("nothing that began in the time was answered: try more --seconds.")
    }
  }

  /// A request that moved so many messages, from `began` until `ended`.
  mutating func record(_ messages: Int, from began: UInt64, to ended: UInt64, since start: UInt64) {
    count += messages
    latencies.record(ended - began)
    let second = Int((ended - min(start, ended)) / 1_000_000_000)
    if perSecond.count <= second {
      perSecond += Array(repeating: 0, count: second + 1 - perSecond.count)
    }
    perSecond[second] += messages
    elapsed = max(elapsed, ended - min(start, ended))
  }

  /// What others did in the same time.
  mutating func add(_ other: Measurement) {
    count += other.count
    latencies.add(other.latencies)
    unserved += other.unserved
    elapsed = max(elapsed, other.elapsed)
    let longer = max(perSecond.count, other.perSecond.count)
    perSecond = (0..<longer).map { second in
      (second < perSecond.count ? perSecond[second] : 0)
        + (second < other.perSecond.count ? other.perSecond[second] : 0)
    }
  }

  /// Two measurements, one after the other, as one.
  func joined(_ other: Measurement) -> Measurement {
    var joined = self
    joined.count += other.count
    joined.elapsed += other.elapsed
    joined.latencies.add(other.latencies)
    joined.perSecond += other.perSecond
    return joined
  }

  /// Microseconds.
  func percentile(_ fraction: Double) -> Double { Double(latencies.percentile(fraction)) / 1000 }
}

// MARK: Text

func whole(_ value: Double) -> String { String(Int(value.rounded())) }
func hundredths(_ value: Double) -> String { String(format: "%.2f", value) }
func tenths(_ value: Double) -> String { String(format: "%.1f", value) }

func pad(_ text: String, _ width: Int) -> String {
  text + String(repeating: " ", count: max(0, width - text.count))
}

func lead(_ text: String, _ width: Int) -> String {
  String(repeating: " ", count: max(0, width - text.count)) + text
}

/// Bytes as people say them: `4 KiB`.
func sizeText(_ count: Int) -> String {
  if count >= 1 << 20, count.isMultiple(of: 1 << 20) { return "\(count >> 20) MiB" }
  if count >= 1 << 10, count.isMultiple(of: 1 << 10) { return "\(count >> 10) KiB" }
  return "\(count) bytes"
}

func removeTree(_ path: String) {
  do { try FileManager.default.removeItem(atPath: path) } catch {
    print("could not remove \(path): \(error.localizedDescription)")
  }
}

/// What goes on, on a line of standard error that is written over, when that is a terminal.
enum ProgressLine {
  static let isShown = isatty(2) == 1

  static func tell(_ text: String) {
    guard isShown else { return }
    FileHandle.standardError.write(Data("\r\u{1b}[K\(text)".utf8))
  }
  static func end() { tell("") }
}
