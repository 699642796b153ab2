// SPDX-License-Identifier: Apache-2.0
import PenstockSystem

/// The limit that no durable log on this device can pass one commit at a time: append one aligned
/// block to blocks that were written before, sync, repeat.
enum DeviceProbe {
  static func measure(
    _ directory: String, _ files: PosixFileSystem, block: Int, seconds: Double,
    size: Int = 64 << 20
  ) throws -> Measurement {
    let path = "\(directory)/device"
    let file = try files.open(path, .create)
    let size = max(size, block * 16)
    let zeros = CommitBuffer(capacity: 1 << 20)
    zeros.putZeros(1 << 20)
    for offset in stride(from: 0, to: size, by: 1 << 20) {
      try zeros.withBytes { bytes throws(SystemError) in try file.write(bytes, at: UInt64(offset)) }
    }
    try file.sync()

    let buffer = CommitBuffer(capacity: block)
    for index in 0..<block / 8 { buffer.put(UInt64(index) &* 0x9e37_79b9_7f4a_7c15) }
    let clock = RealClock()
    var measurement = Measurement()
    var offset = 0
    let start = clock.monotonicNanoseconds()
    let end = start + UInt64(seconds * 1e9)
    var now = start
    while now < end {
      try buffer.withBytes { bytes throws(SystemError) in
        try file.write(bytes, at: UInt64(offset))
      }
      try file.syncData()
      let after = clock.monotonicNanoseconds()
      measurement.latencies.append(after - now)
      measurement.count += 1
      now = after
      offset = offset + 2 * block <= size ? offset + block : 0
    }
    measurement.elapsed = now - start
    try file.close()
    try files.remove(path)
    measurement.finish()
    return measurement
  }
}

/// What the figures were measured on.
enum Machine {
  static var description: String {
    var model = "unknown processor"
    if let text = read("/proc/cpuinfo") {
      let lines = text.split(separator: "\n")
      if let line = lines.first(where: { $0.hasPrefix("model name") }),
        let colon = line.firstIndex(of: ":")
      {
        model = String(line[line.index(after: colon)...].drop { $0 == " " })
      }
      let count = lines.count { $0.hasPrefix("processor") }
      model += ", \(count) processors"
    }
    if let version = read("/proc/sys/kernel/osrelease") {
      model += ", Linux " + version.filter { $0 != "\n" }
    }
    return model
  }

  private static func read(_ path: String) -> String? {
    do {
      let file = try PosixFileSystem().open(path, .readOnly)
      var bytes = [UInt8](repeating: 0, count: 64 << 10)
      let count = try bytes.withMutableRaw { raw throws(SystemError) in
        try file.read(into: &raw, at: 0)
      }
      try file.close()
      return String(decoding: bytes[..<count], as: UTF8.self)
    } catch { return nil }
  }
}
