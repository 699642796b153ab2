// SPDX-License-Identifier: Apache-2.0

/// A JSON value to be written, members in the order given.
public enum JSON: Sendable {
  case null
  case bool(Bool)
  case integer(Int64)
  /// LSNs, salts and sizes.
  case unsigned(UInt64)
  case string(String)
  case array([JSON])
  case object([(String, JSON)])

  static func int(_ value: Int) -> JSON { .integer(Int64(value)) }
  static func lsn(_ value: UInt64?) -> JSON { value.map { .unsigned($0) } ?? .null }
  static func optional(_ text: String?) -> JSON { text.map { .string($0) } ?? .null }

  /// The value on one line.
  public var line: String {
    var out: [UInt8] = []
    write(into: &out)
    return String(decoding: out, as: UTF8.self)
  }

  private func write(into out: inout [UInt8]) {
    switch self {
    case .null: out += "null".utf8
    case .bool(let value): out += (value ? "true" : "false").utf8
    case .integer(let value): out += String(value).utf8
    case .unsigned(let value): out += String(value).utf8
    case .string(let text): Self.quote(text, into: &out)
    case .array(let items):
      out.append(UInt8(ascii: "["))
      for (index, item) in items.enumerated() {
        if index > 0 { out.append(UInt8(ascii: ",")) }
        item.write(into: &out)
      }
      out.append(UInt8(ascii: "]"))
    case .object(let members):
      out.append(UInt8(ascii: "{"))
      for (index, member) in members.enumerated() {
        if index > 0 { out.append(UInt8(ascii: ",")) }
        Self.quote(member.0, into: &out)
        out.append(UInt8(ascii: ":"))
        member.1.write(into: &out)
      }
      out.append(UInt8(ascii: "}"))
    }
  }

  private static func quote(_ text: String, into out: inout [UInt8]) {
    out.append(UInt8(ascii: "\""))
    // The two bytes before: of the marks beyond ASCII that end a line for some readers of lines,
    // which are U+0085, U+2028 and U+2029.
    var before: (UInt8, UInt8) = (0, 0)
    for byte in text.utf8 {
      switch byte {
      case UInt8(ascii: "\""): out += #"\""#.utf8
      case UInt8(ascii: "\\"): out += #"\\"#.utf8
      case UInt8(ascii: "\n"): out += #"\n"#.utf8
      case UInt8(ascii: "\r"): out += #"\r"#.utf8
      case UInt8(ascii: "\t"): out += #"\t"#.utf8
      case ..<0x20, 0x7f: out += (#"\u"# + Hex.text(UInt64(byte), digits: 4)).utf8
      case 0x85 where before.1 == 0xc2:
        out.removeLast()
        out += #"\u0085"#.utf8
      case 0xa8 where before == (0xe2, 0x80), 0xa9 where before == (0xe2, 0x80):
        out.removeLast(2)
        out += (byte == 0xa8 ? #"\u2028"# : #"\u2029"#).utf8
      default: out.append(byte)
      }
      before = (before.1, byte)
    }
    out.append(UInt8(ascii: "\""))
  }

  /// Bytes as text where they are valid UTF-8, else as base64 under another name.
  static func bytes(_ name: String, _ bytes: [UInt8]) -> (String, JSON) {
    if let text = String(validating: bytes, as: UTF8.self) { return (name, .string(text)) }
    return (name + "Base64", .string(base64(bytes)))
  }

  static func base64(_ bytes: [UInt8]) -> String {
    let digits = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
    var out: [UInt8] = []
    out.reserveCapacity((bytes.count + 2) / 3 * 4)
    for start in stride(from: 0, to: bytes.count, by: 3) {
      let group = bytes[start..<min(start + 3, bytes.count)]
      let word = group.reduce(0) { $0 << 8 | UInt32($1) } << (8 * UInt32(3 - group.count))
      for place in 0..<4 {
        let digit = digits[Int(word >> (18 - 6 * UInt32(place)) & 63)]
        out.append(place <= group.count ? digit : UInt8(ascii: "="))
      }
    }
    return String(decoding: out, as: UTF8.self)
  }
}

enum Hex {
  static func text(_ value: UInt64, digits: Int = 16) -> String {
    let text = String(value, radix: 16)
    return String(repeating: "0", count: max(0, digits - text.utf8.count)) + text
  }
}

/// Points in time for people: ISO 8601 in UTC, to the millisecond.
public enum TimeText {
  public static func text(_ milliseconds: Int64) -> String {
    let day = Int64(86_400_000)
    let days = milliseconds / day - (milliseconds % day < 0 ? 1 : 0)
    // Years beyond four digits: nobody set such a clock, but a damaged time may say so.
    guard (-700_000...2_900_000).contains(days) else { return "\(milliseconds) ms" }
    let rest = milliseconds - days * day
    let (year, month, date) = civil(days)
    func two(_ value: Int64) -> String { value < 10 ? "0\(value)" : "\(value)" }
    let fraction = rest % 1000
    let years = String(repeating: "0", count: max(0, 4 - String(year).utf8.count)) + String(year)
    return "\(years)-\(two(month))-\(two(date))T\(two(rest / 3_600_000)):"
      + "\(two(rest / 60_000 % 60)):\(two(rest / 1000 % 60))."
      + String(repeating: "0", count: 3 - String(fraction).utf8.count) + "\(fraction)Z"
  }

  /// Reads `2026-01-31T12:00:00Z`, with or without a fraction, or milliseconds since 1970.
  public static func milliseconds(_ text: String) -> Int64? {
    if let number = Int64(text) { return number }
    let bytes = Array(text.utf8)
    guard bytes.count >= 20, bytes.last == UInt8(ascii: "Z") else { return nil }
    for (place, mark) in [(4, "-"), (7, "-"), (10, "T"), (13, ":"), (16, ":")]
    where bytes[place] != mark.utf8.first { return nil }
    func number(_ range: Range<Int>) -> Int64? {
      guard bytes[range].allSatisfy({ (48...57).contains($0) }) else { return nil }
      return Int64(String(decoding: bytes[range], as: UTF8.self))
    }
    guard let year = number(0..<4), let month = number(5..<7), let date = number(8..<10),
      let hour = number(11..<13), let minute = number(14..<16), let second = number(17..<19),
      (1...12).contains(month), (1...31).contains(date), hour < 24, minute < 60, second < 61
    else { return nil }
    var fraction: Int64 = 0
    if bytes.count > 20 {
      guard bytes[19] == UInt8(ascii: "."), bytes.count <= 24, bytes.count > 21,
        let digits = number(20..<bytes.count - 1)
      else { return nil }
      fraction = digits * [100, 10, 1][bytes.count - 22]
    }
    let days = days(year, month, date)
    guard civil(days) == (year, month, date) else { return nil }
    return ((days * 24 + hour) * 60 + minute) * 60_000 + second * 1000 + fraction
  }

  /// The proleptic Gregorian date of a day counted from 1970-01-01, by eras of 400 years.
  private static func civil(_ days: Int64) -> (Int64, Int64, Int64) {
    let shifted = days + 719_468
    let era = (shifted >= 0 ? shifted : shifted - 146_096) / 146_097
    let dayOfEra = shifted - era * 146_097
    let yearOfEra =
      (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
    let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
    let month = (5 * dayOfYear + 2) / 153
    let date = dayOfYear - (153 * month + 2) / 5 + 1
    let year = yearOfEra + era * 400 + (month >= 10 ? 1 : 0)
    return (year, month < 10 ? month + 3 : month - 9, date)
  }

  private static func days(_ year: Int64, _ month: Int64, _ date: Int64) -> Int64 {
    let shifted = month <= 2 ? year - 1 : year
    let era = shifted / 400
    let yearOfEra = shifted - era * 400
    let dayOfYear = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + date - 1
    let dayOfEra = yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear
    return era * 146_097 + dayOfEra - 719_468
  }
}
