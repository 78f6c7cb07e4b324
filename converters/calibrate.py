"""Texts for calibrating and for comparing: built in, so that a conversion needs no data and no network.

Several languages, code, numbers, names, odd white space, one word and whole paragraphs. The two sets share no text:
what is compared was not calibrated on. They are written for edgemm.
"""

_PROSE = """
The ferry leaves at half past six, so we should be at the harbour before it gets dark.
My grandmother kept every letter that she received during the war in a blue tin box.
A small bakery on the corner sells the best rye bread in the whole town.
The committee postponed its decision because two of the five members were ill.
Water expands when it freezes, which is why full bottles burst in the freezer.
He tightened the last screw, stepped back, and hoped that the shelf would hold.
The patient reports chest pain after climbing stairs and a cough that gets worse at night.
Interest rates rose by a quarter of a point, and the price of bonds fell at once.
Both parties agree to settle any dispute under this contract by arbitration in Geneva.
Photosynthesis turns light, water and carbon dioxide into sugar and oxygen.
The goalkeeper saved two penalties, but her team still lost in extra time.
Please return the signed form together with a copy of your passport by Friday.
The recipe needs four eggs, a pinch of salt and three hundred grams of flour.
Migrating geese fly in a V because each bird saves energy in the wake of another.
The museum shows maps from the sixteenth century that still draw California as an island.
If the red lamp blinks twice, switch the pump off and call the service number.
She translated the poem three times and was never satisfied with the last line.
The new bridge will carry trams, bicycles and pedestrians, but no cars.
Researchers found that the drug shortens the illness by about one day on average.
Our train was cancelled, and the next one will not arrive until tomorrow morning.
The court held that the evidence had been obtained without a valid warrant.
Sort the laundry by colour and never wash wool at more than thirty degrees.
A black hole's mass can be estimated from the orbits of the stars around it.
The teacher asked who had eaten the apple, and nobody dared to answer.
Cheap flights have turned a quiet fishing village into a crowded resort.
The algorithm visits every node once and keeps the unvisited ones in a queue.
Rain is expected in the north, while the south stays dry and unusually warm.
I would like to change my reservation from two nights to three, if possible.
The volcano had been silent for three hundred years before it erupted last spring.
Her first novel sold only nine hundred copies, her second one a million.
Store the vaccine between two and eight degrees and protect it from light.
The orchestra tuned its instruments while the last guests looked for their seats.
Solar panels on the school's roof now supply half of its electricity.
The dog next door barks whenever the postman comes, even on Sundays.
Quarterly revenue grew by twelve percent, mostly thanks to the Asian market.
Bees communicate the direction of food by dancing in the dark of the hive.
The old clock in the hall has been five minutes slow for as long as I remember.
Dig a hole twice as wide as the root ball and water the tree thoroughly.
The astronauts spent six hours outside the station to replace a broken antenna.
What is the difference between weather and climate?
How do I remove a coffee stain from a white shirt?
Which of these two phones has the better camera?
The suspect was seen leaving the building shortly before midnight with a suitcase.
A good password is long, unique and not the name of your cat.
Trade unions and employers met again on Monday without reaching an agreement.
The river has carried more water this year than in any year since 1954.
She learned to play the cello at forty and now performs in a small quartet.
The printer reports a paper jam although there is no paper in it at all.
"""
_OTHER = """
Der Zug nach Hamburg fährt heute ausnahmsweise von Gleis sieben ab.
Die Gemeinde beschloss, den alten Bahnhof in eine Bücherei zu verwandeln.
Le petit restaurant près du port ferme toujours en janvier.
Les scientifiques ont mesuré la température de l'océan à trois mille mètres.
La abogada pidió más tiempo para estudiar los documentos del caso.
Mañana lloverá por la tarde en casi toda la costa del norte.
La mostra resta aperta fino alla fine di settembre, tranne il lunedì.
O preço do café subiu outra vez por causa da seca no interior.
De fietsers moesten omrijden omdat de brug gesloten was.
Wczoraj wieczorem w całym mieście nie było prądu.
Поезд прибывает на третий путь через десять минут.
Учёные нашли новый вид бабочек в горах Алтая.
今日の会議は午後三時に変更されました。
这家图书馆周末从上午九点开到下午五点。
오늘 저녁에는 비가 오고 바람이 강하게 불겠습니다.
القطار القادم يصل بعد عشر دقائق إلى الرصيف الثالث.
הספרייה סגורה היום בגלל החג.
Tàu đến Hà Nội khởi hành lúc bảy giờ sáng mai.
def mean(values):\\n    return sum(values) / len(values)
SELECT name, COUNT(*) FROM orders WHERE total > 100 GROUP BY name;
for (int i = 0; i < n; i++) { sum += a[i] * b[i]; }
Error 404: the page /index.html was not found on this server.
git commit -m "fix the off-by-one error in the pager"
https is the encrypted form of http; its default port is 443.
Yes.
no
2026-11-24
3.14159265
???
TODO
e = mc²
C++17
lol that's soooo funny 😂😂
Thank you!!! ❤️
   leading   and    trailing   blanks
ALL CAPITAL LETTERS ARE HARD TO READ
aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
supercalifragilisticexpialidocious
"""


def _lines(block: str) -> list[str]:
    return [line.replace("\\n", "\n") for line in block.splitlines() if line]


def _paragraphs(sentences: list[str], sizes: tuple[int, ...]) -> list[str]:
    """Joined sentences: texts of several lengths up to a model's window."""
    return [" ".join(sentences[start : start + size]) for start, size in enumerate(sizes)]


def _half(first: int) -> tuple[str, ...]:
    """Every second line of both blocks, from `first` on, and paragraphs of the prose among them."""
    prose, other = _lines(_PROSE)[first::2], _lines(_OTHER)[first::2]
    return (*prose, *other, *_paragraphs(prose, (2, 3, 3, 4, 4, 5, 6, 7, 8, 10, 12, 14)))


CALIBRATION = _half(0)
HELD_OUT = _half(1)
