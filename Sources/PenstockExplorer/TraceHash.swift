// SPDX-License-Identifier: Apache-2.0
internal import PenstockTesting

/// A hash of all that happened in a run, in order: two runs of one seed must have the same.
package struct TraceHash: Hashable, Sendable {
  package private(set) var value: UInt64 = 0xcbf2_9ce4_8422_2325

  package init() {}

  mutating func add(_ number: UInt64) {
    value = (value ^ number) &* 0x9e37_79b9_7f4a_7c15
    value ^= value >> 29
  }

  mutating func add(_ text: String) {
    for byte in text.utf8 { value = (value ^ UInt64(byte)) &* 0x0000_0100_0000_01b3 }
    add(UInt64(text.utf8.count))
  }

  mutating func add(_ call: Call) {
    add(call.kind.rawValue)
    add(call.path)
    add(call.offset)
    add(UInt64(truncatingIfNeeded: call.length))
  }
}
