"""Sentences as reports of CT and MRI write them, each with all that it states, to the last detail.

``+`` present, ``-`` absent, ``?`` uncertain; ``@`` the side (left, right, both); ``:`` the place; ``/`` the severity;
``#`` the count; ``~`` the size in mm. What is not written must not be read.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from mmfm.report import Finding, Side, Status
from mmfm.text import label_report

SIGNS = {"+": Status.PRESENT, "-": Status.ABSENT, "?": Status.UNCERTAIN}
SIDES = {"": None, "left": Side.LEFT, "right": Side.RIGHT, "both": Side.BILATERAL}
NOTATION = re.compile(r"([+?-])(\w+)(?:@(\w+))?(?::([\w_]+))?(?:/(\w+))?(?:#(\d+))?(?:~([\d.]+))?")

LIVER = "-liver_lesion -hepatomegaly"
SPLEEN = "-spleen_lesion -splenomegaly"
PANCREAS = "-pancreas_lesion -pancreatitis"
KIDNEYS = "-kidney_lesion -hydronephrosis -kidney_stone"

FORMULATIONS = {
    "chest_ct": {
        "There is an 8 mm nodule in the right upper lobe.": "+nodule@right:upper_lobe~8",
        "8-mm solid nodule, left lower lobe.": "+nodule@left:lower_lobe~8",
        "A 1.2 x 0.9 cm spiculated nodule is seen in the RUL.": "+nodule@right:upper_lobe~12",
        "Ground-glass nodule measuring 14 mm in the apical segment of the left upper lobe.": (
            "+nodule@left:upper_lobe~14"
        ),
        "Two nodules in the right lower lobe, the larger 9 mm in diameter.": "+nodule@right:lower_lobe#2~9",
        "Three pulmonary nodules are present in both lungs, measuring up to 7 mm.": "+nodule@both#3~7",
        "Multiple bilateral pulmonary nodules.": "+nodule@both",
        "2 nodules in the middle lobe.": "+nodule@right:middle_lobe#2",
        "Solitary pulmonary nodule in the LUL.": "+nodule@left:upper_lobe#1",
        "Millimetric nonspecific nodules are observed in both lungs.": "+nodule@both",
        "A 4 mm nodule in the right middle lobe and a 6 mm nodule in the lingula.": "+nodule@both:middle_lobe~6",
        "Calcified granuloma in the left lower lobe.": "+nodule@left:lower_lobe",
        "No suspicious pulmonary nodule or mass.": "-nodule -mass",
        "No pulmonary nodules.": "-nodule",
        "Image 3: nodule in the left lung with T2 signal.": "+nodule@left",
        "There are 2 nodules, one 5 mm in the right upper lobe and one 7 mm in the left lower lobe.": (
            "+nodule@both:upper_lobe#2~7"
        ),
        "Nodules: 6 mm in the right upper lobe, 4 mm in the left upper lobe.": "+nodule@both:upper_lobe~6",
        "After 10 days there is an opacity in the lingula.": "+lung_opacity@left:upper_lobe",
        "Spiculated mass in the left breast.": "",
        "No nodular or infiltrative lesion was detected in the lung parenchyma.": "-nodule -lung_opacity -mass",
        "Nodule in the superior segment of the right lower lobe measures 11 mm (previously 8 mm).": (
            "+nodule@right:lower_lobe~11"
        ),
        "The nodule lies 5 mm from the pleura.": "+nodule",
        "Nodularity along the fissure.": "?nodule",
        "Hypodense nodules in the thyroid gland.": "",
        "Left thyroid nodule.": "",
        "Adrenal nodule on the left.": "",
        "5.2 cm mass in the right upper lobe with spiculated margins.": "+mass@right:upper_lobe~52",
        "Left hilar mass encasing the pulmonary artery.": "+mass@left:hilum",
        "Mass-like consolidation in the left lower lobe.": "+mass@left:lower_lobe",
        "Mass effect on the trachea.": "",
        "Findings are suspicious for lung cancer.": "?mass",
        "Small right pleural effusion with adjacent atelectasis.": "+pleural_effusion@right/small +atelectasis@right",
        "Moderate left and small right pleural effusions.": "+pleural_effusion@both/small",
        "Bilateral pleural effusion, more on the right.": "+pleural_effusion@both",
        "Pleural effusion-thickening was not detected.": "-pleural_effusion",
        "Pericardial effusion-thickening was not observed.": "-pericardial_effusion",
        "No pleural or pericardial effusion.": "-pleural_effusion -pericardial_effusion",
        "Pericardial effusion measuring 12 mm in thickness.": "+pericardial_effusion~12",
        "Trace pericardial fluid.": "+pericardial_effusion/trace",
        "Large loculated effusion in the left hemithorax.": "+pleural_effusion@left/large",
        "Small apical pneumothorax on the right.": "+pneumothorax@right:upper_lobe/small",
        "No pneumothorax.": "-pneumothorax",
        "Tension pneumothorax on the left with mediastinal shift.": "+pneumothorax@left",
        "Left hydropneumothorax.": "+pneumothorax@left +pleural_effusion@left",
        "Heart size is normal.": "-cardiomegaly",
        "Heart contour and size are normal.": "-cardiomegaly",
        "The heart is mildly enlarged.": "+cardiomegaly/mild",
        "Cardiothoracic index is increased.": "+cardiomegaly",
        "Severe cardiomegaly.": "+cardiomegaly/severe",
        "Calcified atheroma plaques in the aorta and coronary arteries.": (
            "+arterial_calcification +coronary_calcification"
        ),
        "Coronary artery calcifications.": "+coronary_calcification",
        "Severe three-vessel coronary artery calcification.": "+coronary_calcification/severe",
        "No coronary calcification.": "-coronary_calcification",
        "Atherosclerotic calcification of the aortic arch.": "+arterial_calcification",
        "Wall calcifications are observed in the thoracic aorta.": "+arterial_calcification",
        "Calcified mediastinal lymph nodes.": "",
        "Small sliding hiatal hernia.": "+hiatal_hernia/small",
        "No hiatal hernia.": "-hiatal_hernia",
        "Enlarged mediastinal lymph nodes, the largest 18 mm in short axis.": "+lymphadenopathy:mediastinum~18",
        "No mediastinal, hilar or axillary lymphadenopathy.": "-lymphadenopathy",
        "No enlarged lymph nodes in pathological dimensions were detected.": "-lymphadenopathy",
        "Mediastinal and bilateral hilar lymphadenopathy.": "+lymphadenopathy@both:hilum",
        "Moderate centrilobular emphysema with upper lobe predominance.": "+emphysema:upper_lobe/moderate",
        "Emphysematous changes in both lungs.": "+emphysema@both",
        "Paraseptal emphysema and bullae in both apices.": "+emphysema@both:upper_lobe",
        "Subcutaneous emphysema.": "",
        "The lungs are hyperinflated.": "?emphysema",
        "Linear atelectasis in the left lower lobe.": "+atelectasis@left:lower_lobe",
        "Dependent atelectasis at both lung bases.": "+atelectasis@both:lower_lobe",
        "Collapse of the right middle lobe.": "+atelectasis@right:middle_lobe",
        "Ground glass opacities in both lower lobes.": "+lung_opacity@both:lower_lobe",
        "Patchy ground-glass densities, predominantly peripheral, in the right upper lobe.": (
            "+lung_opacity@right:upper_lobe"
        ),
        "No infiltration.": "-lung_opacity",
        "Crazy-paving pattern.": "+lung_opacity +interlobular_septal_thickening",
        "Sequela fibrotic changes in both apices.": "+fibrosis@both:upper_lobe",
        "Honeycombing at the lung bases.": "+fibrosis@both:lower_lobe",
        "Pleuroparenchymal sequelae density in the right apex.": "+fibrosis@right:upper_lobe",
        "Traction bronchiectasis in the lower lobes.": "+bronchiectasis:lower_lobe +fibrosis:lower_lobe",
        "Cylindrical bronchiectasis in the left lower lobe.": "+bronchiectasis@left:lower_lobe",
        "No bronchiectasis.": "-bronchiectasis",
        "Mosaic attenuation pattern in both lungs.": "+mosaic_attenuation@both",
        "Peribronchial thickening is noted.": "+peribronchial_thickening",
        "Bronchial wall thickening.": "+peribronchial_thickening",
        "Bilateral interlobular septal thickening.": "+interlobular_septal_thickening@both",
        "Smooth thickening of the interlobular septa.": "+interlobular_septal_thickening",
        "Consolidation with air bronchograms in the right lower lobe.": "+consolidation@right:lower_lobe",
        "Consolidation in the left upper lobe, which may represent pneumonia.": "+consolidation@left:upper_lobe",
        "No focal consolidation.": "-consolidation",
        "Possible consolidation in the lingula.": "?consolidation@left:upper_lobe",
        "Consolidation cannot be excluded.": "?consolidation",
        "Acute fractures of the left 5th and 6th ribs.": "+fracture@left:ribs",
        "Three displaced right rib fractures.": "+fracture@right:ribs#3",
        "Old healed fracture of the right seventh rib.": "+fracture@right:ribs",
        "Compression fracture of the T8 vertebral body.": "+fracture:vertebra",
        "No acute fracture.": "-fracture",
        "The bones are unremarkable.": "-fracture",
        "The lungs are clear.": "-nodule -lung_opacity -consolidation -mass",
        "Right chest port with its tip in the superior vena cava.": "+medical_material@right",
        "Left chest tube in place.": "+medical_material@left",
        "Endotracheal tube and nasogastric tube are seen.": "+medical_material",
        "Median sternotomy wires.": "+medical_material",
    },
    "abdomen": {
        "Hypodense lesion in segment 6 measuring 12 mm.": "+liver_lesion:right_hepatic_lobe~12",
        "There is a 3.4 cm hypervascular mass in the right hepatic lobe.": "+liver_lesion:right_hepatic_lobe~34",
        "Two hypodense lesions in the left lobe of the liver, the largest 2.1 x 1.8 cm.": (
            "+liver_lesion:left_hepatic_lobe#2~21"
        ),
        "Multiple hepatic metastases.": "+liver_lesion",
        "Simple hepatic cyst in segment IVa.": "+liver_lesion:left_hepatic_lobe",
        "Subcentimeter hypodensity in hepatic segment 7, too small to characterize.": (
            "+liver_lesion:right_hepatic_lobe"
        ),
        "The liver contains three cysts measuring up to 15 mm.": "+liver_lesion#3~15",
        "Hemangioma in the dome of the liver.": "+liver_lesion:right_hepatic_lobe",
        "Cyst in the caudate lobe.": "+liver_lesion:caudate_lobe",
        "No focal hepatic lesion.": "-liver_lesion",
        "No focal lesion in the liver, spleen or pancreas.": "-liver_lesion -spleen_lesion -pancreas_lesion",
        "No hepatic or renal lesions.": "-liver_lesion -kidney_lesion",
        "Possible metastasis in the right lobe of the liver.": "?liver_lesion:right_hepatic_lobe",
        "Findings consistent with HCC.": "+liver_lesion",
        "The liver, spleen, pancreas and adrenal glands are unremarkable.": (
            f"{LIVER} {SPLEEN} {PANCREAS} -adrenal_mass"
        ),
        "The liver is normal in size.": "-hepatomegaly",
        "The liver is enlarged.": "+hepatomegaly",
        "Hepatosplenomegaly.": "+hepatomegaly +splenomegaly",
        "Diffuse hepatic steatosis.": "+fatty_liver",
        "Fatty infiltration of the liver.": "+fatty_liver",
        "Cirrhotic liver with moderate ascites.": "+cirrhosis +free_fluid/moderate",
        "Nodular liver contour consistent with cirrhosis.": "+cirrhosis",
        "2.3 cm exophytic cyst at the upper pole of the left kidney.": "+kidney_lesion@left:upper_pole~23",
        "4.5 x 4.1 cm enhancing mass in the interpolar region of the right kidney.": (
            "+kidney_lesion@right:interpolar_region~45"
        ),
        "Right lower pole renal cyst, 18 mm.": "+kidney_lesion@right:lower_pole~18",
        "Bilateral simple renal cysts.": "+kidney_lesion@both",
        "Left renal mass concerning for renal cell carcinoma.": "+kidney_lesion@left",
        "Three cysts in the left kidney.": "+kidney_lesion@left#3",
        "Angiomyolipoma in the mid pole of the left kidney.": "+kidney_lesion@left:interpolar_region",
        "No renal mass.": "-kidney_lesion",
        "The kidneys are unremarkable.": KIDNEYS,
        "Both kidneys are normal.": KIDNEYS,
        "5 mm stone in the distal right ureter with mild right hydronephrosis.": (
            "+kidney_stone@right~5 +hydronephrosis@right/mild"
        ),
        "Moderate left hydroureteronephrosis.": "+hydronephrosis@left/moderate",
        "Nonobstructing 3 mm calculus in the lower pole of the left kidney.": "+kidney_stone@left:lower_pole~3",
        "No hydronephrosis or nephrolithiasis.": "-hydronephrosis -kidney_stone",
        "No hydronephrosis.": "-hydronephrosis",
        "Obstructing calculus at the left ureterovesical junction.": "+kidney_stone@left",
        "Staghorn calculus in the right kidney.": "+kidney_stone@right",
        "There is a 3 cm mass in the head of the pancreas.": "+pancreas_lesion:pancreatic_head~30",
        "Hypoattenuating lesion in the pancreatic tail measuring 1.6 cm.": "+pancreas_lesion:pancreatic_tail~16",
        "Cystic lesion in the uncinate process.": "+pancreas_lesion:pancreatic_head",
        "Pancreatic body mass with upstream ductal dilatation.": "+pancreas_lesion:pancreatic_body +biliary_dilatation",
        "Pancreatic pseudocyst.": "+pancreas_lesion",
        "No pancreatic mass.": "-pancreas_lesion",
        "Acute pancreatitis with peripancreatic fat stranding.": "+pancreatitis",
        "The pancreas is normal.": PANCREAS,
        "Small amount of free fluid in the pelvis.": "+free_fluid/small",
        "Large volume ascites.": "+free_fluid/large",
        "No free fluid or free air.": "-free_fluid -free_air",
        "No ascites.": "-free_fluid",
        "Trace perihepatic fluid.": "+free_fluid/trace",
        "Pneumoperitoneum.": "+free_air",
        "Free intraperitoneal air beneath the diaphragm.": "+free_air",
        "Cholelithiasis without evidence of cholecystitis.": "+gallstones -cholecystitis",
        "Multiple stones in the gallbladder.": "+gallstones",
        "Gallbladder wall thickening and pericholecystic fluid.": "?cholecystitis",
        "The gallbladder is normal.": "-gallstones -cholecystitis",
        "No intrahepatic biliary ductal dilatation.": "-biliary_dilatation",
        "The common bile duct is dilated, measuring 14 mm.": "+biliary_dilatation~14",
        "Splenomegaly, 16 cm.": "+splenomegaly~160",
        "The spleen is not enlarged.": "-splenomegaly",
        "Splenic laceration.": "+spleen_lesion",
        "2 cm left adrenal nodule.": "+adrenal_mass@left~20",
        "Right adrenal mass measuring 6.5 cm.": "+adrenal_mass@right~65",
        "The adrenal glands are normal.": "-adrenal_mass",
        "Dilated loops of small bowel with a transition point in the right lower quadrant.": "+bowel_obstruction",
        "Small bowel obstruction.": "+bowel_obstruction",
        "No bowel obstruction.": "-bowel_obstruction",
        "No bowel obstruction or wall thickening.": "-bowel_obstruction -bowel_wall_thickening",
        "Sigmoid volvulus.": "+bowel_obstruction",
        "Ileocolic intussusception.": "+bowel_obstruction",
        "Circumferential wall thickening of the terminal ileum.": "+bowel_wall_thickening",
        "Diverticulitis of the sigmoid colon.": "+bowel_wall_thickening",
        "The appendix is dilated to 12 mm with surrounding fat stranding.": "+appendicitis~12",
        "Findings are consistent with acute appendicitis.": "+appendicitis",
        "The appendix is normal.": "-appendicitis",
        "Appendicitis cannot be excluded.": "?appendicitis",
        "Infrarenal abdominal aortic aneurysm measuring 5.4 cm.": "+aortic_aneurysm~54",
        "The aorta is normal in caliber.": "-aortic_aneurysm",
        "No retroperitoneal or mesenteric lymphadenopathy.": "-lymphadenopathy",
        "Enlarged retroperitoneal lymph nodes.": "+lymphadenopathy",
        "Left inguinal hernia containing fat.": "+hernia@left",
        "Rim-enhancing fluid collection in the right lower quadrant compatible with abscess.": "+abscess@right",
        "4 cm left adnexal cyst.": "+pelvic_mass@left~40",
        "Uterine fibroids.": "+pelvic_mass",
        "7 cm mesenteric mass.": "+bowel_mass~70",
        "Lesion in the L2 vertebral body.": "",
        "Subcutaneous nodules.": "",
        "There is a mass in the right kidney. The mass measures 3.5 cm.": "+kidney_lesion@right~35",
        "Mass in the left breast. The mass is 2 cm.": "",
        "Fat at the interface of the tumor and the liver.": "",
        "Small type 1 hiatal hernia.": "+hernia/small",
        "15-minute delayed image shows a left adrenal nodule.": "+adrenal_mass@left",
        "Liver cyst. Left renal cyst.": "+liver_lesion +kidney_lesion@left",
    },
    "head": {
        "Acute infarct in the left frontal lobe.": "+infarct@left:frontal_lobe",
        "Acute infarct in the left frontoparietal region with restricted diffusion.": "+infarct@left:frontal_lobe",
        "2.5 cm acute infarct in the right cerebellar hemisphere.": "+infarct@right:cerebellum~25",
        "Chronic lacunar infarct in the left thalamus.": "+infarct@left:thalamus",
        "Old lacunar infarcts in the bilateral basal ganglia.": "+infarct@both:basal_ganglia",
        "Lacune in the right putamen.": "+infarct@right:basal_ganglia",
        "Left pontine infarct.": "+infarct:brainstem",
        "Infarction in the right caudate head.": "+infarct@right:basal_ganglia",
        "Three small infarcts in the left parietal lobe.": "+infarct@left:parietal_lobe/small#3",
        "Restricted diffusion in the right occipital lobe.": "?infarct@right:occipital_lobe",
        "No acute infarct.": "-infarct",
        "No restricted diffusion to suggest acute infarction.": "-infarct",
        "No evidence of acute infarction or hemorrhage.": "-infarct -intracranial_hemorrhage",
        "Loss of gray-white differentiation in the left temporal lobe.": "?infarct@left:temporal_lobe",
        "Hypodensity in the right MCA territory suggestive of subacute infarct.": "?infarct@right",
        "Encephalomalacia in the left occipital lobe.": "?infarct@left:occipital_lobe",
        "Intraparenchymal hematoma in the left basal ganglia measuring 3.2 x 2.1 cm.": (
            "+intracranial_hemorrhage@left:basal_ganglia~32"
        ),
        "Acute subarachnoid hemorrhage.": "+intracranial_hemorrhage",
        "Right thalamic hemorrhage with intraventricular extension.": "+intracranial_hemorrhage@right:thalamus",
        "1.8 cm hemorrhage in the right temporal lobe.": "+intracranial_hemorrhage@right:temporal_lobe~18",
        "Left subdural hematoma, 9 mm in thickness.": (
            "+intracranial_hemorrhage@left~9 +extra_axial_collection@left~9"
        ),
        "Small right frontal contusion.": "+intracranial_hemorrhage@right:frontal_lobe/small",
        "No intracranial hemorrhage.": "-intracranial_hemorrhage",
        "No mass effect, midline shift or hemorrhage.": "-midline_shift -intracranial_hemorrhage",
        "There is no intracranial hemorrhage, mass, or extra-axial collection.": (
            "-intracranial_hemorrhage -brain_mass -extra_axial_collection"
        ),
        "Subtle hyperdensity may represent hemorrhage.": "?intracranial_hemorrhage/minimal",
        "Scalp hematoma over the left parietal bone.": "",
        "Left frontal scalp hematoma.": "",
        "Two hemorrhages in the left occipital lobe.": "+intracranial_hemorrhage@left:occipital_lobe#2",
        "Cerebellar hemorrhage.": "+intracranial_hemorrhage:cerebellum",
        "3.2 cm ring-enhancing mass in the right temporal lobe.": "+brain_mass@right:temporal_lobe~32",
        "Enhancing lesion in the left cerebellar hemisphere measuring 14 mm.": "+brain_mass@left:cerebellum~14",
        "Heterogeneously enhancing mass in the left frontal lobe with vasogenic edema.": (
            "+brain_mass@left:frontal_lobe +brain_edema"
        ),
        "Extra-axial dural-based mass along the right convexity, consistent with meningioma.": "+brain_mass@right",
        "Two enhancing lesions in the right parietal lobe, the largest 11 mm.": "+brain_mass@right:parietal_lobe#2~11",
        "Multiple brain metastases.": "+brain_mass",
        "Pituitary macroadenoma measuring 2.4 cm.": "+brain_mass:sella~24",
        "Pontine glioma.": "+brain_mass:brainstem",
        "No mass.": "-brain_mass",
        "No mass effect.": "",
        "No intracranial mass lesion.": "-brain_mass",
        "Findings may represent glioblastoma.": "?brain_mass",
        "Mass in the left parotid gland.": "",
        "Nasopharyngeal mass on the right. This tumor measures 4 cm.": "",
        "There is a mass with marked enhancement in the pineal region.": "+brain_mass",
        "Lytic lesion in the calvarium.": "",
        "Vestibular schwannoma in the left cerebellopontine angle.": "+brain_mass@left:cerebellopontine_angle",
        "Mild hydrocephalus.": "+hydrocephalus/mild",
        "Severe obstructive hydrocephalus.": "+hydrocephalus/severe",
        "Ventriculomegaly.": "?hydrocephalus",
        "The lateral ventricles are enlarged.": "?hydrocephalus:ventricle",
        "No hydrocephalus.": "-hydrocephalus",
        "The ventricles are normal in size.": "-hydrocephalus",
        "Ventricles and sulci are normal.": "-hydrocephalus -atrophy",
        "The ventricular system is normal in size and configuration.": "-hydrocephalus",
        "8 mm of midline shift to the left.": "+midline_shift~8",
        "Rightward midline shift of 6 mm.": "+midline_shift~6",
        "No midline shift.": "-midline_shift",
        "Subfalcine herniation.": "+midline_shift",
        "Midline structures are not displaced.": "-midline_shift",
        "Diffuse cerebral edema with effacement of the sulci.": "+brain_edema",
        "Vasogenic edema in the right frontal lobe.": "+brain_edema@right:frontal_lobe",
        "The sulci are effaced.": "+brain_edema",
        "No edema.": "-brain_edema",
        "Moderate cerebral atrophy.": "+atrophy/moderate",
        "Generalized volume loss.": "+atrophy",
        "Chronic microvascular ischemic changes.": "+white_matter_lesions",
        "Periventricular white matter hyperintensities.": "+white_matter_lesions",
        "Multiple T2 hyperintense lesions in the periventricular white matter.": "+white_matter_lesions",
        "Demyelinating plaques in the corpus callosum.": "+white_matter_lesions:corpus_callosum",
        "Bilateral subdural hygromas.": "+extra_axial_collection@both",
        "No extra-axial fluid collection.": "-extra_axial_collection",
        "Epidural hematoma in the right temporal region.": (
            "+intracranial_hemorrhage@right:temporal_lobe +extra_axial_collection@right:temporal_lobe"
        ),
        "6 mm saccular aneurysm of the basilar tip.": "+aneurysm~6",
        "Left MCA aneurysm.": "+aneurysm@left",
        "No aneurysm.": "-aneurysm",
        "Arteriovenous malformation in the right parietal lobe.": "+vascular_malformation@right:parietal_lobe",
        "Cavernous malformation in the pons.": "+vascular_malformation:brainstem",
        "Depressed skull fracture on the left.": "+skull_fracture@left",
        "Fracture of the right temporal bone.": "+skull_fracture@right",
        "No calvarial fracture.": "-skull_fracture",
        "Mucosal thickening of the left maxillary sinus.": "+sinus_disease@left",
        "The paranasal sinuses are clear.": "-sinus_disease",
        "Arachnoid cyst in the left middle cranial fossa measuring 4 cm.": "+arachnoid_cyst@left~40",
        "Brain abscess in the right frontal lobe.": "+brain_abscess@right:frontal_lobe",
        "Chiari I malformation.": "+malformation",
        "Agenesis of the corpus callosum.": "+malformation:corpus_callosum",
        "No acute intracranial abnormality.": "-intracranial_hemorrhage -infarct",
        "The brain parenchyma is normal.": "-brain_mass -infarct",
        "Frontal sinus opacification.": "+sinus_disease",
        "Intracranial hemorrhage cannot be excluded.": "?intracranial_hemorrhage",
        "Mass versus abscess in the left temporal lobe.": (
            "?brain_mass@left:temporal_lobe ?brain_abscess@left:temporal_lobe"
        ),
        "History of stroke.": "",
    },
}


def read(notation: str) -> dict[str, tuple[Any, ...]]:
    found = {}
    for word in notation.split():
        match = NOTATION.fullmatch(word)
        assert match, word
        sign, name, side, place, severity, count, size = match.groups()
        found[name] = (
            SIGNS[sign],
            SIDES[side or ""],
            place and place.replace("_", " "),
            severity,
            count and int(count),
            size and float(size),
        )
    return found


def details(found: Finding) -> tuple[Any, ...]:
    size = found.measurement.value if found.measurement else None
    return found.status, found.laterality, found.location, found.severity, found.count, size


@pytest.mark.parametrize(
    ("region", "text", "notation"),
    [(region, *pair) for region, table in FORMULATIONS.items() for pair in table.items()],
    ids=lambda text: text[:50],
)
def test_all_that_is_stated(region: str, text: str, notation: str) -> None:
    assert {f.observation: details(f) for f in label_report(text, region=region)} == read(notation)
