// SPDX-License-Identifier: Apache-2.0

/// A number of a condition. Integers are compared as such, so that none of their digits is lost.
struct PolicyNumber: Comparable, Sendable {
  private var integer: Int64?
  private var value: Double

  /// Decimal, with an exponent if need be.
  init?(_ text: String) {
    guard (1...40).contains(text.utf8.count), text.utf8.allSatisfy(Self.belongsToNumber),
      let value = Double(text), value.isFinite
    else { return nil }
    self.value = value
    integer = Int64(text)
  }

  private static func belongsToNumber(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "+"), UInt8(ascii: "-"),
      UInt8(ascii: "."), UInt8(ascii: "e"), UInt8(ascii: "E"):
      true
    default: false
    }
  }

  static func == (left: PolicyNumber, right: PolicyNumber) -> Bool {
    if let left = left.integer, let right = right.integer { return left == right }
    return left.value == right.value
  }

  static func < (left: PolicyNumber, right: PolicyNumber) -> Bool {
    if let left = left.integer, let right = right.integer { return left < right }
    return left.value < right.value
  }
}

/// Points in time as conditions write them, in milliseconds since 1970.
enum PolicyDate {
  /// Reads ISO 8601 in the form of the W3C (from `2026` to `2026-05-04T03:02:01.5+02:00`), or
  /// seconds since 1970. Four digits are a year. A time without a zone is UTC.
  static func milliseconds(_ text: String) -> Int64? {
    guard (1...40).contains(text.utf8.count) else { return nil }
    var cursor = Cursor(rest: text[...].utf8)
    if text.utf8.count != 4, text.utf8.allSatisfy({ $0 &- UInt8(ascii: "0") < 10 }) {
      // Until the year 5138.
      guard let seconds = Int64(text), seconds < 100_000_000_000 else { return nil }
      return seconds * 1000
    }
    guard let year = cursor.digits(4) else { return nil }
    var (month, day): (Int64, Int64) = (1, 1)
    if cursor.take("-") {
      guard let digits = cursor.digits(2), (1...12).contains(digits) else { return nil }
      month = digits
      if cursor.take("-") {
        guard let digits = cursor.digits(2), (1...daysInMonth(year, month)).contains(digits) else {
          return nil
        }
        day = digits
      } else if !cursor.rest.isEmpty {
        return nil
      }
    }
    let date = days(year, month, day) * 86_400_000
    if cursor.rest.isEmpty { return date }
    guard cursor.take("T"), let time = cursor.timeOfDay(), cursor.rest.isEmpty else { return nil }
    return date + time
  }

  /// `2026-05-04T03:02:01Z`.
  static func text(_ milliseconds: Int64) -> String {
    // Four digits of a year, whatever the clock says.
    let latest = days(9999, 12, 31) * 86_400 + 86_399
    let seconds = min(max(milliseconds / 1000, 0), latest)
    var day = seconds / 86_400
    var year: Int64 = 1970 + day / 366
    while days(year + 1, 1, 1) <= day { year += 1 }
    day -= days(year, 1, 1)
    var month: Int64 = 1
    while day >= daysInMonth(year, month) {
      day -= daysInMonth(year, month)
      month += 1
    }
    func two(_ number: Int64) -> String { number < 10 ? "0\(number)" : "\(number)" }
    let time = seconds % 86_400
    return "\(year)-\(two(month))-\(two(day + 1))T\(two(time / 3600)):\(two(time / 60 % 60))"
      + ":\(two(time % 60))Z"
  }

  private static func isLeap(_ year: Int64) -> Bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
  }

  private static func daysInMonth(_ year: Int64, _ month: Int64) -> Int64 {
    switch month {
    case 2: isLeap(year) ? 29 : 28
    case 4, 6, 9, 11: 30
    default: 31
    }
  }

  /// Days from 1970 to a date of the years 0 to 10000.
  private static func days(_ year: Int64, _ month: Int64, _ day: Int64) -> Int64 {
    // Year 0 is a leap year; `year + 3` and the like count the leap days before `year`.
    var days = year * 365 + (year + 3) / 4 - (year + 99) / 100 + (year + 399) / 400 - 719_528
    for earlier in 1..<12 where Int64(earlier) < month {
      days += daysInMonth(year, Int64(earlier))
    }
    return days + day - 1
  }

  private struct Cursor {
    var rest: Substring.UTF8View

    mutating func take(_ character: Unicode.Scalar) -> Bool {
      guard rest.first == UInt8(ascii: character) else { return false }
      rest = rest.dropFirst()
      return true
    }

    mutating func digits(_ count: Int) -> Int64? {
      let digits = rest.prefix(count)
      guard digits.count == count, digits.allSatisfy({ $0 &- UInt8(ascii: "0") < 10 }) else {
        return nil
      }
      rest = rest.dropFirst(count)
      return digits.reduce(0) { $0 * 10 + Int64($1 &- UInt8(ascii: "0")) }
    }

    /// `hh:mm`, `hh:mm:ss` or `hh:mm:ss.f` with `Z`, `±hh:mm` or nothing; in UTC.
    mutating func timeOfDay() -> Int64? {
      guard let minutes = hoursAndMinutes() else { return nil }
      var time = minutes * 60_000
      if take(":") {
        guard let seconds = digits(2), seconds < 60 else { return nil }
        time += seconds * 1000
        if take(".") {
          var unit: Int64 = 100
          guard let first = digits(1) else { return nil }
          time += first * unit
          while let digit = digits(1) {
            unit /= 10
            time += digit * unit
          }
        }
      }
      if take("Z") || rest.isEmpty { return time }
      let isEast = take("+")
      guard isEast || take("-"), let offset = hoursAndMinutes() else { return nil }
      return time + (isEast ? -offset : offset) * 60_000
    }

    private mutating func hoursAndMinutes() -> Int64? {
      guard let hours = digits(2), hours < 24, take(":"), let minutes = digits(2), minutes < 60
      else { return nil }
      return hours * 60 + minutes
    }
  }
}

/// An address of the Internet Protocol. One of version 4 in the clothes of version 6
/// (`::ffff:192.0.2.1`) is one of version 4.
struct IPAddress: Hashable, Sendable {
  fileprivate var high: UInt64
  fileprivate var low: UInt64

  fileprivate var isVersion4: Bool { high == 0 && low >> 32 == 0xffff }

  /// A zone after a percent sign does not count.
  init?(_ text: String) {
    guard (2...64).contains(text.utf8.count) else { return nil }
    let bytes = Array(text.utf8.prefix { $0 != UInt8(ascii: "%") })
    if let address = Self.version4(bytes[...]) {
      (high, low) = (0, 0xffff << 32 | UInt64(address))
      return
    }
    guard let groups = Self.version6(bytes) else { return nil }
    high = groups[..<4].reduce(0) { $0 << 16 | UInt64($1) }
    low = groups[4...].reduce(0) { $0 << 16 | UInt64($1) }
  }

  private static func version4(_ bytes: ArraySlice<UInt8>) -> UInt32? {
    let parts = bytes.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
    guard parts.count == 4 else { return nil }
    var address: UInt32 = 0
    for part in parts {
      // A leading zero means octal to some.
      guard (1...3).contains(part.count), part.allSatisfy({ $0 &- UInt8(ascii: "0") < 10 }),
        part.count == 1 || part.first != UInt8(ascii: "0")
      else { return nil }
      let value = part.reduce(UInt32(0)) { $0 * 10 + UInt32($1 &- UInt8(ascii: "0")) }
      guard value < 256 else { return nil }
      address = address << 8 | value
    }
    return address
  }

  private static func version6(_ bytes: [UInt8]) -> [UInt16]? {
    let colon = UInt8(ascii: ":")
    let gap = bytes.indices.dropLast().first { bytes[$0] == colon && bytes[$0 + 1] == colon }
    guard let gap else {
      return groups(bytes[...]).flatMap { $0.count == 8 ? $0 : nil }
    }
    guard let head = groups(bytes[..<gap]), let tail = groups(bytes[(gap + 2)...]),
      head.count + tail.count < 8
    else { return nil }
    return head + Array(repeating: 0, count: 8 - head.count - tail.count) + tail
  }

  private static func groups(_ bytes: ArraySlice<UInt8>) -> [UInt16]? {
    guard !bytes.isEmpty else { return [] }
    let parts = bytes.split(separator: UInt8(ascii: ":"), omittingEmptySubsequences: false)
    var groups: [UInt16] = []
    for (index, part) in parts.enumerated() {
      if index == parts.count - 1, let address = version4(part) {
        groups += [UInt16(address >> 16), UInt16(address & 0xffff)]
        continue
      }
      guard (1...4).contains(part.count) else { return nil }
      var group: UInt16 = 0
      for byte in part {
        guard let digit = JSONParser.hexDigit(byte) else { return nil }
        group = group << 4 | UInt16(digit)
      }
      groups.append(group)
    }
    return groups
  }
}

/// An address, or all that begin with the same bits.
struct IPRange: Sendable {
  private var address: IPAddress
  private var bits: Int

  /// `192.0.2.0/24`, `2001:db8::/32`, or an address alone.
  init?(_ text: String) {
    let parts = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
    guard let first = parts.first, !first.utf8.contains(UInt8(ascii: "%")),
      let address = IPAddress(String(first))
    else { return nil }
    self.address = address
    bits = 128
    guard parts.count == 2 else { return }
    guard (1...3).contains(parts[1].utf8.count), let length = UInt8(parts[1]),
      parts[1].utf8.allSatisfy({ $0 &- UInt8(ascii: "0") < 10 })
    else { return nil }
    let offset = first.utf8.contains(UInt8(ascii: ":")) ? 0 : 96
    guard Int(length) + offset <= 128 else { return nil }
    bits = Int(length) + offset
  }

  func contains(_ other: IPAddress) -> Bool {
    guard address.isVersion4 == other.isVersion4 else { return false }
    func mask(_ bits: Int) -> UInt64 { bits <= 0 ? 0 : UInt64.max << UInt64(max(64 - bits, 0)) }
    return (address.high ^ other.high) & mask(bits) == 0
      && (address.low ^ other.low) & mask(bits - 64) == 0
  }
}
